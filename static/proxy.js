// Asks the proxy for the panel's data.

/** Throws an error with `status` where the proxy says no, and another where it says nothing. */
export async function ask(path, patienceMs = 4000, method = "GET") {
  const response = await fetch(path, { method, signal: AbortSignal.timeout(patienceMs) });
  if (!response.ok) throw Object.assign(new Error(), { status: response.status });
  return response.json();
}
