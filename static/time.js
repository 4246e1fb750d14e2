// The proxy's clock and zone, whatever those of the browser are.

const DAY_MS = 86_400_000;

let at = Date.now();
let seen = performance.now();
let offset = 0;

/** What the proxy's clock says, in ms since 1970, and how far its zone is ahead of UTC. */
export function setClock(nowMs, offsetMinutes) {
  at = nowMs;
  seen = performance.now();
  offset = offsetMinutes * 60_000;
}

export const now = () => at + performance.now() - seen;

const text = (ms) => new Date(ms + offset).toISOString();

/** The time of the proxy's timestamp (or of a moment in ms); the day too where it isn't today. */
export function clock(when, digits = 8) {
  if (when == null) return "–";
  const [day, time] = (typeof when === "number" ? text(when) : when).split("T");
  return `${day === today() ? "" : `${day.slice(5)} `}${time.slice(0, digits)}`;
}

/** The day that it is, for what changes with it. */
export const today = () => text(now()).slice(0, 10);

/** As short as a column needs it: to the second today, else the day and the minute. */
export const brief = (timestamp) => clock(timestamp, timestamp.startsWith(today()) ? 8 : 5);

/** To the minute. */
export const minute = (when) => clock(when, 5);

/** OpenRouter counts its days in UTC. */
export const nextDayOfQuota = () => text(Math.ceil((now() + 1) / DAY_MS) * DAY_MS).slice(11, 16);

/** How long ago something began, in whole seconds. */
export const elapsed = (ms) => `${Math.max(0, Math.floor((now() - ms) / 1000))} s`;
