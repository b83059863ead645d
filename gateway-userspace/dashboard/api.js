// The admin API, as the session's cookie opens it.

let csrf = null;
let onLoggedOut = () => {};

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem?.detail ?? problem?.title ?? `answer ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

export function whenLoggedOut(action) {
  onLoggedOut = action;
}

async function send(method, path, body) {
  const headers = {};
  if (csrf !== null && method !== "GET") headers["x-csrf-token"] = csrf;
  if (body !== undefined && typeof body !== "string") headers["content-type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    credentials: "same-origin", cache: "no-store",
  });
  const text = await answer.text();
  let value = null;
  try {
    value = text === "" ? null : JSON.parse(text);
  } catch {
    value = { detail: text };
  }
  if (answer.ok) return value;
  if (answer.status === 401 && path !== "/login") onLoggedOut();
  throw new ApiError(answer.status, value);
}

export const get = (path) => send("GET", path);
export const post = (path, body) => send("POST", path, body);
export const patch = (path, body) => send("PATCH", path, body);
export const remove = (path) => send("DELETE", path);

/** What there is, or null where this gateway has no such resource. */
export async function getIfThere(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** Who we are; throws without a session. */
export async function session() {
  const mine = await get("/session");
  csrf = mine.csrf;
  return mine;
}

export async function logIn(token) {
  csrf = (await post("/login", { token })).csrf;
}

export async function logOut() {
  await post("/logout");
  csrf = null;
}
