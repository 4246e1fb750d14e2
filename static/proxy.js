// Asks the proxy for the panel's data.

/** Throws an error with `status` where the proxy says no, and another where it says nothing. */
export async function ask(path, patienceMs = 4000, method = "GET") {
  // The page's own address may hold a user's name and key, with which fetch takes no relative path.
  const response = await fetch(location.origin + path, { method, signal: AbortSignal.timeout(patienceMs) });
  if (!response.ok) throw Object.assign(new Error(), { status: response.status });
  return response.json();
}
