// <image-input label="Image" multiple compact>: images by file, drop or paste.

import { button, el, pictureImage } from "./dom.js";
import { imageFiles, readPicture } from "./files.js";

/**
 * Holds the chosen images and shows them. Fires `change` after each change.
 *
 * Attributes: `label` names the input; `multiple` keeps several images; `compact` is a button without
 * pictures, for a page that shows them elsewhere.
 */
class ImageInput extends HTMLElement {
  #pictures = [];
  #list = el("ul", { className: "thumbs" });
  #problem = el("p", { className: "error", role: "alert" });

  connectedCallback() {
    const label = this.getAttribute("label");
    const multiple = this.hasAttribute("multiple");
    const input = el("input", { type: "file", accept: "image/*", multiple, className: "visually-hidden" });
    input.addEventListener("change", (event) => {
      event.stopPropagation(); // `change` of this element comes once the files are read
      this.addFiles([...input.files]);
      input.value = ""; // the same file may be chosen again
    });
    const hint = multiple ? "Drop or paste images, or " : "Drop or paste an image, or ";
    const text = this.hasAttribute("compact")
      ? [label]
      : [el("span", { className: "drop-hint" }, hint, el("u", {}, "choose"))];
    if (!this.hasAttribute("compact")) {
      this.append(el("span", { className: "field-name", "aria-hidden": "true" }, label));
      input.setAttribute("aria-label", label);
    }
    const drop = el("label", { className: "drop" }, input, ...text);
    this.append(el("div", { className: "well" }, drop, this.#list), this.#problem);
    this.addEventListener("dragover", () => this.classList.add("dragged"));
    for (const end of ["dragleave", "drop"]) {
      this.addEventListener(end, () => this.classList.remove("dragged"));
    }
  }

  /** The chosen images. @returns {import("./files.js").Picture[]} */
  get pictures() {
    return this.#pictures;
  }

  set pictures(pictures) {
    this.#pictures = this.hasAttribute("multiple") ? pictures : pictures.slice(-1);
    this.#show();
    this.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** Returns the images and keeps none. */
  takePictures() {
    const pictures = this.#pictures;
    this.#pictures = [];
    this.#show();
    return pictures;
  }

  /** Adds the images of a paste or a drop; returns whether there were any. */
  addTransfer(transfer) {
    const files = imageFiles(transfer);
    this.addFiles(files);
    return files.length > 0;
  }

  async addFiles(files) {
    this.#problem.textContent = "";
    if (files.length === 0) return;
    try {
      const added = await Promise.all(files.map(readPicture));
      this.pictures = [...this.#pictures, ...added];
    } catch (error) {
      this.#problem.textContent = error.message;
    }
  }

  #show() {
    if (this.hasAttribute("compact")) return;
    this.classList.toggle("filled", this.#pictures.length > 0);
    this.#list.replaceChildren(
      ...this.#pictures.map((picture) => {
        const remove = button("\u00d7", () => this.#remove(picture), {
          className: "remove",
          "aria-label": `Remove ${picture.name}`,
        });
        return el("li", {}, pictureImage(picture), remove);
      }),
    );
  }

  #remove(picture) {
    this.pictures = this.#pictures.filter((other) => other !== picture);
    this.querySelector("input").focus();
  }
}

customElements.define("image-input", ImageInput);
