// What the page asks of its server.
import { find } from "./dom.js";

const KEPT = "cogsmith-token";
let asking = null;

/** A request that was answered with a problem. */
export class Refused extends Error {}

/** GET, or POST with a body; returns the response, or throws Refused. A token is asked for where one is demanded. */
async function request(path, { body, signal } = {}) {
  const headers = { accept: "application/json" };
  const token = sessionStorage.getItem(KEPT);
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(`api/${path}`, {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers,
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached. Is it still running?");
  }
  if (response.status === 401) {
    await login();
    return request(path, { body, signal });
  }
  if (!response.ok) throw new Refused(await reason(response));
  return response;
}

export const getJson = async (path) => (await request(path)).json();
export const postJson = async (path, body) => (await request(path, { body })).json();

/** POST, and yield the answer's lines of JSON as they come. */
export async function* postForLines(path, body, signal) {
  const response = await request(path, { body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

async function reason(response) {
  try {
    const problem = await response.json();
    return problem.detail ?? problem.title;
  } catch {
    return `The server answered ${response.status}.`;
  }
}

/** Ask the person for the token; those who ask at once share one dialog. */
function login() {
  asking ??= new Promise((resolve) => {
    const dialog = find("#login");
    const field = find("input", dialog);
    field.value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(KEPT, field.value);
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
