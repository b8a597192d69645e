// Requests to the server: keys, errors, images and server-sent events.

const KEY_NAME = "mm-key";
// Relative to the page, so that a proxy may serve both below a path of its own.
const ROOT = new URL(".", document.baseURI);

/** A request that failed, with the server's message. */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status; 0 where the server was not reached.
   * @param {{message?: string, param?: string, code?: string}} error The `error` object of the answer.
   */
  constructor(status, error) {
    super(error.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.param = error.param;
    this.code = error.code;
  }
}

let requestKey = async () => null;
let keyPrompt = null;

/** Paths and models that do not stream: the server has said so once. */
const unstreamed = new Set();

/**
 * Sets the function that obtains an API key from the user after a 401.
 *
 * @param {(message: string|null) => Promise<string|null>} prompt The message says why the last key failed,
 *     null before the first key; null as the result cancels the request.
 */
export function setKeyPrompt(prompt) {
  requestKey = prompt;
}

/** The API key of this browser tab, or null. */
export function apiKey() {
  return sessionStorage.getItem(KEY_NAME);
}

/** Stores the API key for this browser tab. */
export function setApiKey(key) {
  sessionStorage.setItem(KEY_NAME, key);
}

/** GET of JSON. */
export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

/** POST of a JSON body, answered by JSON. */
export async function post(path, body, signal) {
  return (await request(path, jsonBody(body, signal))).json();
}

/** POST of a JSON body, answered by an image; returns its object URL. */
export async function postForImage(path, body, signal) {
  return URL.createObjectURL(await (await request(path, jsonBody(body, signal))).blob());
}

/** GET of a file as a Blob. */
export async function getBlob(path, signal) {
  return (await request(path, { signal })).blob();
}

/**
 * Shows the image of a path in an element; its alternative text stays where the image cannot be had. Once
 * there is an API key, the image is fetched: <img> sends no Authorization header.
 */
export async function showImage(img, path) {
  if (apiKey() === null) {
    img.src = new URL(path, ROOT);
    return;
  }
  const blob = await getBlob(path).catch(() => null);
  if (blob === null) return;
  const url = URL.createObjectURL(blob);
  img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
  img.src = url;
}

/**
 * POST of a JSON body, answered by server-sent events; by a single JSON object where the server does not
 * stream this request, which is one event then.
 *
 * @param {(event: Object) => void} onEvent Called with each event in order.
 */
export async function stream(path, body, onEvent, signal) {
  const name = `${path} ${body.model}`;
  const isStreamed = !unstreamed.has(name);
  let response;
  try {
    response = await request(path, jsonBody({ ...body, stream: isStreamed }, signal));
  } catch (error) {
    if (!(isStreamed && error.status === 400 && error.param === "stream")) throw error;
    unstreamed.add(name);
    response = await request(path, jsonBody(body, signal));
  }
  if (response.headers.get("content-type")?.startsWith("text/event-stream")) {
    await readEvents(response.body, onEvent);
  } else {
    onEvent(await response.json());
  }
}

function jsonBody(body, signal) {
  return {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  };
}

async function request(path, init) {
  for (;;) {
    const key = apiKey();
    const headers = { ...init.headers, ...(key && { authorization: `Bearer ${key}` }) };
    const response = await reach(path, { ...init, headers });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (response.status !== 401) throw error;
    // Another request may have replaced the key while this one was under way.
    if (key === apiKey()) {
      keyPrompt ??= requestKey(key === null ? null : error.message).finally(() => (keyPrompt = null));
      if ((await keyPrompt) === null) throw error;
    }
    init.signal?.throwIfAborted();
  }
}

async function reach(path, init) {
  try {
    return await fetch(new URL(path, ROOT), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "The server cannot be reached. Is mm serve still running?" });
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => ({})); // a proxy may answer with HTML
  return new ApiError(response.status, body?.error ?? {});
}

async function readEvents(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const data = dataOf(block);
        if (data === "[DONE]") return;
        if (data === "") continue; // a comment that keeps the connection open
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(200, event.error);
        onEvent(event);
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the body has failed already, or is of no use any more
  }
  throw new ApiError(200, { message: "The connection ended before the answer was complete." });
}

function dataOf(block) {
  const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
}
