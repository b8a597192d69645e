// A mask that is painted over an image: by pointer, or by the arrow keys and space.

import { decode } from "./files.js";

/** The color of the mask on the page; the mask that is sent is white on black. */
const COLOR = "#c026d3";

/** How far an arrow key moves the brush, as a share of its diameter. */
const KEY_STEP = 0.25;

/**
 * A stroke of the brush.
 *
 * @typedef {{diameter: number, isErased: boolean, points: [number, number][]}} Stroke Pixels of the image.
 */

/** Paints a mask of the size of an image. */
export class MaskPainter {
  #canvas;
  #image;
  #tools;
  /** @type {Stroke[]} */
  #strokes = [];
  #isPainting = false;
  #keyPoint = null;

  /** @param {HTMLFieldSetElement} root */
  constructor(root) {
    this.#canvas = root.querySelector("canvas");
    this.#image = root.querySelector("img");
    this.#tools = Object.fromEntries([...root.querySelectorAll("[name]")].map((tool) => [tool.name, tool]));
    this.#tools.undo.onclick = () => this.#keep(this.#strokes.slice(0, -1));
    this.#tools.clear.onclick = () => this.#keep([]);
    this.#canvas.addEventListener("pointerdown", (event) => this.#startStroke(event));
    this.#canvas.addEventListener("pointermove", (event) => this.#extendStroke(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.#canvas.addEventListener(end, () => (this.#isPainting = false));
    }
    this.#canvas.addEventListener("keydown", (event) => this.#paintByKeys(event));
    this.#canvas.addEventListener("blur", () => this.#moveKeyPoint(null));
  }

  /** Starts over with an image. */
  async setImage(url) {
    const { naturalWidth, naturalHeight } = await decode(url);
    this.#image.src = url;
    this.#canvas.width = naturalWidth;
    this.#canvas.height = naturalHeight;
    this.#keep([]);
  }

  get isEmpty() {
    return this.#strokes.length === 0;
  }

  /** The mask as the data URL of a PNG: white where the image is painted anew, black elsewhere. */
  toDataUrl() {
    const canvas = document.createElement("canvas");
    canvas.width = this.#canvas.width;
    canvas.height = this.#canvas.height;
    const context = canvas.getContext("2d");
    this.#strokes.forEach((stroke) => paint(context, stroke, "white"));
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  }

  #startStroke(event) {
    event.preventDefault(); // a drag would select text
    this.#canvas.focus();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#isPainting = true;
    this.#addStroke(this.#point(event));
  }

  #extendStroke(event) {
    if (!this.#isPainting) return;
    this.#strokes.at(-1).points.push(this.#point(event));
    this.#draw();
  }

  #addStroke(point) {
    const { size, erase } = this.#tools;
    const stroke = { diameter: this.#diameter(), isErased: erase.checked, points: [point] };
    size.setAttribute("aria-valuetext", `${Math.round(stroke.diameter)} pixels`);
    this.#keep([...this.#strokes, stroke]);
  }

  /** The brush is a share of the shorter side, in percent. */
  #diameter() {
    return (Math.min(this.#canvas.width, this.#canvas.height) * this.#tools.size.valueAsNumber) / 100;
  }

  /** The pixel of the image under the pointer. */
  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = this.#canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  #paintByKeys(event) {
    const directions = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    const direction = directions[event.key];
    const { width, height } = this.#canvas;
    const [x, y] = this.#keyPoint ?? [width / 2, height / 2];
    if (direction) {
      const step = this.#diameter() * KEY_STEP;
      const moved = (value, by, limit) => Math.min(Math.max(value + by * step, 0), limit);
      this.#moveKeyPoint([moved(x, direction[0], width), moved(y, direction[1], height)]);
    } else if (event.key === " ") {
      this.#addStroke([x, y]);
    } else {
      return;
    }
    event.preventDefault();
  }

  #moveKeyPoint(point) {
    this.#keyPoint = point;
    this.#draw();
  }

  #keep(strokes) {
    this.#strokes = strokes;
    this.#tools.undo.disabled = this.#tools.clear.disabled = strokes.length === 0;
    this.#draw();
  }

  #draw() {
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#strokes.forEach((stroke) => paint(context, stroke, COLOR));
    if (this.#keyPoint === null) return;
    const radius = this.#diameter() / 2;
    context.lineWidth = Math.max(radius / 12, 1);
    context.strokeStyle = COLOR;
    context.beginPath();
    context.arc(...this.#keyPoint, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

function paint(context, { diameter, isErased, points }, color) {
  context.globalCompositeOperation = isErased ? "destination-out" : "source-over";
  context.strokeStyle = color;
  context.lineWidth = diameter;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  points.forEach((point) => context.lineTo(...point)); // a line to its own start is a dot
  context.stroke();
  context.globalCompositeOperation = "source-over";
}
