// The proxy's clock and zone, whatever those of the browser are.

export const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

let now = Date.now();
let offset = 0;

/** What the proxy's clock says, in ms since 1970, and how far its zone is ahead of UTC. */
export function setClock(nowMs, offsetMinutes) {
  now = nowMs;
  offset = offsetMinutes * 60_000;
}

const text = (ms) => new Date(ms + offset).toISOString();

/** The time of the proxy's timestamp (or of a moment in ms); the day too where it isn't today. */
export function clock(when, digits = 8) {
  if (when == null) return "–";
  const [day, time] = (typeof when === "number" ? text(when) : when).split("T");
  return `${day === text(now).slice(0, 10) ? "" : `${day.slice(5)} `}${time.slice(0, digits)}`;
}

/** To the minute. */
export const minute = (ms) => clock(ms, 5);

/** OpenRouter counts its days in UTC. */
export const nextDayOfQuota = () => text(Math.ceil((now + 1) / DAY_MS) * DAY_MS).slice(11, 16);

/** The beginnings of the last 24 hours, the present one last. Some zones are half an hour off. */
export function lastHours() {
  const current = Math.floor((now + offset) / HOUR_MS) * HOUR_MS - offset;
  return Array.from({ length: 24 }, (_, i) => current - (23 - i) * HOUR_MS);
}

export const hour = (ms) => text(ms).slice(11, 16);
