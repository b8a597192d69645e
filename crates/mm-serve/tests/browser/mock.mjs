// A server with the API of `mm serve` and canned answers, and with the page's real files and headers.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { COLORS, SHAPES, heatPng, shapePng } from "./picture.mjs";

/** As src/page.rs sends it. */
const POLICY = [
  "default-src 'self'",
  "img-src 'self' data: blob:",
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml" };

const MODELS = {
  "clip-shapes": "clip",
  captioner: "caption",
  answerer: "vqa",
  painter: "diffusion",
  taste: "reward",
};

/** A prompt whose drawing stops after its second step, until the client closes the connection. */
export const ENDLESS_PROMPT = "an endless drawing";

const STEPS = 8;

const ITEMS = Object.keys(SHAPES).flatMap((shape) =>
  Object.keys(COLORS).flatMap((color) => [1, 2, 3].map((copy) => ({ shape, color, copy }))),
);

/**
 * Starts the server on a free port.
 *
 * @param {string} pageFolder The folder of index.html.
 * @param {{key?: string, loadingAnswers?: number}} options A key that requests need; how often the server
 *     says at first that it is loading.
 */
export async function startMock(pageFolder, { key, loadingAnswers = 0 } = {}) {
  const mock = new Mock(pageFolder, key, loadingAnswers);
  await mock.listen();
  return mock;
}

class Mock {
  #server = createServer((request, response) => this.#answer(request, response));
  #bodies = new Map();
  #closed = Promise.withResolvers?.() ?? withResolvers();

  constructor(pageFolder, key, loadingAnswers) {
    Object.assign(this, { pageFolder, key, loadingAnswers });
  }

  async listen() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}/`;
  }

  close() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  /** The JSON body of the last POST to a path. */
  last(path) {
    return this.#bodies.get(path);
  }

  /** Resolves when the client has closed the connection of the endless drawing. */
  get endlessClosed() {
    return this.#closed.promise;
  }

  async #answer(request, response) {
    response.setHeader("content-security-policy", POLICY);
    response.setHeader("x-content-type-options", "nosniff");
    const { pathname } = new URL(request.url, this.url);
    try {
      if (pathname === "/") return await this.#file(response, "index.html");
      if (pathname.startsWith("/page/")) return await this.#file(response, pathname.slice("/page/".length));
      if (pathname === "/healthz") return this.#health(response);
      if (this.key && request.headers.authorization !== `Bearer ${this.key}`) {
        return fail(response, 401, "The API key is missing or unknown.");
      }
      if (request.method === "GET") return get(response, pathname);
      const body = JSON.parse(await text(request));
      this.#bodies.set(pathname, body);
      return await this.#post(response, pathname, body);
    } catch (error) {
      return fail(response, error.code === "ENOENT" ? 404 : 500, String(error));
    }
  }

  async #file(response, name) {
    const file = await readFile(join(this.pageFolder, name));
    response.writeHead(200, { "content-type": `${TYPES[extname(name)]}; charset=utf-8` }).end(file);
  }

  #health(response) {
    if (this.loadingAnswers === 0) return send(response, { status: "ok" });
    this.loadingAnswers -= 1;
    return send(response, { status: "loading" }, 503);
  }

  async #post(response, path, body) {
    const badImage = [body.image, ...(body.images ?? [])].some(
      (url) => url && !url.startsWith("data:image/"),
    );
    if (badImage || body.image?.length < 200)
      return fail(response, 400, "The image cannot be decoded.", "image");
    switch (path) {
      case "/v1/search":
        return send(response, search(body));
      case "/v1/heatmap":
        return image(response, heatPng("circle", "red"));
      case "/v1/classify":
        return send(response, classify(body));
      case "/v1/vqa":
        return send(response, { model: body.model, answers: answersTo(body.question) });
      case "/v1/reward":
        return send(response, {
          model: body.model,
          scores: body.images.map((_, place) => 0.31 + 0.17 * place),
        });
      case "/v1/caption":
        return caption(response, body);
      case "/v1/generate":
      case "/v1/edit":
        return this.#generate(response, body);
      default:
        return fail(response, 404, `There is no ${path}.`);
    }
  }

  #generate(response, body) {
    const isEndless = body.prompt === ENDLESS_PROMPT;
    const events = startEvents(response);
    for (let step = 1; step <= (isEndless ? 2 : STEPS); step++) {
      const preview = dataUrl(shapePng("triangle", "yellow", 1 - step / STEPS));
      events.send({ step, steps: STEPS, preview });
    }
    if (isEndless) {
      response.on("close", () => this.#closed.resolve());
      return;
    }
    const seeds = Array.from({ length: body.n ?? 1 }, (_, place) => (body.seed ?? 7) + place);
    const color = body.image ? "blue" : "yellow";
    const images = seeds.map(() => dataUrl(shapePng("triangle", color)));
    events.end({ model: body.model, images, seeds, settings: { steps: STEPS } });
  }
}

function get(response, path) {
  const item = /^\/v1\/indexes\/shapes\/items\/(\d+)\/(image|similar)$/.exec(path);
  if (path === "/v1/models") {
    const data = Object.entries(MODELS).map(([id, task]) => ({
      id,
      object: "model",
      created: 0,
      owned_by: "mm",
      task,
    }));
    return send(response, { object: "list", data });
  }
  if (path === "/v1/indexes") {
    const data = [{ id: "shapes", model: "clip-shapes", rows: ITEMS.length, dim: 64 }];
    return send(response, { object: "list", data });
  }
  if (item?.[2] === "image") {
    const { shape, color } = ITEMS[item[1]];
    return image(response, shapePng(shape, color));
  }
  if (item?.[2] === "similar") {
    const { shape, color } = ITEMS[item[1]];
    const results = ITEMS.map(result).filter(
      ({ metadata }) => metadata.shape === shape && metadata.color === color,
    );
    return send(response, { index: "shapes", total: results.length, seconds: 0.0004, results });
  }
  return fail(response, 404, `There is no ${path}.`);
}

function search({ index, queries, k, offset = 0, filter }) {
  const words = queries.map(({ text }) => text ?? "").join(" ");
  const matching = ITEMS.map(result).filter(({ metadata }) => !filter || filter.includes(metadata.color));
  const score = ({ metadata }) =>
    0.18 + 0.07 * (words.includes(metadata.color) + words.includes(metadata.shape));
  const scored = matching.map((item) => ({ ...item, score: score(item) }));
  scored.sort((a, b) => b.score - a.score);
  return { index, total: scored.length, seconds: 0.0021, results: scored.slice(offset, offset + k) };
}

function result({ shape, color, copy }, id) {
  const caption = `a ${color} ${shape}`;
  return { id, score: 0.99, key: `${shape}s/${color}-${copy}.png`, metadata: { caption, shape, color } };
}

function classify({ model, labels }) {
  const weights = labels.map((_, place) => 0.5 ** place);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const shares = labels.map((label, place) => ({ label, probability: weights[place] / total }));
  return { model, probabilities: "softmax", results: [{ labels: shares }] };
}

function answersTo(question) {
  const answer = question.includes("color") ? "red" : "circle";
  return [
    { answer, probability: 0.86 },
    { answer: "square", probability: 0.09 },
    { answer: "none", probability: 0.02 },
  ];
}

function caption(response, { model, images, stream }) {
  if (!stream)
    return send(response, { model, captions: (images ?? [""]).map(() => "a red circle on paper") });
  const events = startEvents(response);
  for (const word of ["a", " red", " circle", " on", " paper"]) events.send({ text: word });
  return events.end();
}

function startEvents(response) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  const write = (event) => response.write(`data: ${JSON.stringify(event)}\n\n`);
  return {
    send: write,
    end(event) {
      if (event) write(event);
      response.end("data: [DONE]\n\n");
    },
  };
}

function send(response, body, status = 200) {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

function image(response, png) {
  response.writeHead(200, { "content-type": "image/png" }).end(png);
}

function fail(response, status, message, param = null) {
  send(response, { error: { message, type: "invalid_request_error", param, code: null } }, status);
}

function dataUrl(png) {
  return `data:image/png;base64,${png.toString("base64")}`;
}

async function text(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function withResolvers() {
  const parts = {};
  parts.promise = new Promise((resolve) => (parts.resolve = resolve));
  return parts;
}
