// Elements and numbers as text. Text from outside enters the page as text nodes only.

/**
 * Creates an element.
 *
 * @param {string} tag
 * @param {Object} properties DOM properties; names with a hyphen, and `role`, are attributes.
 * @param {...(Node|string)} children
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A button that does not submit its form. */
export function button(text, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, text);
}

/**
 * The image of a picture; its name where the browser cannot decode it, as TIFF, which the server can.
 *
 * @param {import("./files.js").Picture} picture
 */
export function pictureImage({ name, url }) {
  const img = el("img", { src: url, alt: name });
  img.onerror = () => img.replaceWith(el("span", { className: "no-preview" }, name));
  return img;
}

/** The number in an input; undefined, which JSON leaves out, where the input is empty. */
export function numberOf(input) {
  return input.value.trim() === "" ? undefined : Number(input.value);
}

/** The text in an input; undefined, which JSON leaves out, where the input is blank. */
export function textOf(input) {
  return input.value.trim() || undefined;
}

/** The lines of a text that are not blank. */
export function linesOf(input) {
  return input.value
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
}

/** A probability, 0 to 1, as "12.3 %". */
export function percent(probability) {
  return `${(probability * 100).toFixed(1)}\u00a0%`;
}

/** A duration in seconds as "3.2 ms" or "1.5 s". */
export function duration(seconds) {
  if (seconds < 0.1) return `${(seconds * 1000).toFixed(1)}\u00a0ms`;
  return `${seconds.toFixed(seconds < 10 ? 1 : 0)}\u00a0s`;
}

/** An integer with separators, and the noun in singular or plural. */
export function count(number, noun) {
  return `${number.toLocaleString("en")}\u00a0${noun}${number === 1 ? "" : "s"}`;
}

/**
 * A list of labelled bars.
 *
 * @param {{label: string, probability: number}[]} items Probabilities from 0 to 1.
 */
export function bars(items) {
  const rows = items.map(({ label, probability }) => {
    const fill = el("span", { className: "bar-fill" });
    fill.style.inlineSize = `${Math.min(Math.max(probability, 0), 1) * 100}%`;
    return el(
      "li",
      {},
      el("span", { className: "bar-label" }, label),
      el("span", { className: "bar-value" }, percent(probability)),
      el("span", { className: "bar", "aria-hidden": "true" }, fill),
    );
  });
  return el("ol", { className: "bars" }, ...rows);
}
