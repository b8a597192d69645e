// The edit panel: an image changed by an instruction, toward a description, or where a mask is white.

import { compare } from "./compare.js";
import { el, numberOf, textOf } from "./dom.js";
import { decode } from "./files.js";
import { Preview, editButton, generate, pictureActions } from "./generation.js";
import { MaskPainter } from "./mask.js";

/**
 * The kinds of edit: the name, an example and the field of the text. Those that add noise to the image have
 * their usual strength.
 */
const KINDS = {
  instruction: { name: "Instruction", example: "make it winter", field: "instruction" },
  description: {
    name: "Description of the result",
    example: "a watercolor of a harbour",
    field: "prompt",
    strength: 0.6,
  },
  mask: { name: "Description of the painted part", example: "a red boat", field: "prompt", strength: 1 },
};

/**
 * Starts the panel.
 *
 * @param {HTMLElement} panel
 * @param {{editPicture: (picture: import("./files.js").Picture) => void}} page
 * @returns {(picture: import("./files.js").Picture) => void} Takes a picture from elsewhere on the page.
 */
export function startEdit(panel, { editPicture }) {
  const form = panel.querySelector("form");
  const input = form.querySelector("image-input");
  const runBar = form.querySelector("run-bar");
  const maskField = form.querySelector(".mask");
  const mask = new MaskPainter(maskField);
  const fields = form.elements;

  const showKind = async () => {
    const kind = KINDS[fields.kind.value];
    form.querySelector("[data-text-name]").textContent = kind.name;
    fields.text.placeholder = kind.example;
    for (const field of form.querySelectorAll("[data-kinds]")) {
      field.hidden = !field.dataset.kinds.split(" ").includes(fields.kind.value);
    }
    const [picture] = input.pictures;
    maskField.hidden ||= !picture;
    if (maskField.hidden) return;
    await mask.setImage(picture.url).catch(() => {
      maskField.hidden = true;
      runBar.fail("The browser cannot show this image, so no mask can be painted over it.");
    });
  };
  form.addEventListener("change", (event) => {
    if (event.target.name === "kind") fields.strength.value = KINDS[fields.kind.value].strength ?? "";
    if (event.target === input || event.target.name === "kind") showKind();
  });
  showKind();

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [picture] = input.pictures;
    const text = textOf(fields.text);
    const isMasked = fields.kind.value === "mask";
    if (!picture) return runBar.fail("Choose an image first.");
    if (!text) return runBar.fail("Write what to change.");
    if (isMasked && mask.isEmpty) return runBar.fail("Paint over the part to change first.");
    const body = {
      model: fields.model.value,
      image: picture.url,
      ...kindFields(KINDS[fields.kind.value], fields, text),
      mask: isMasked ? mask.toDataUrl() : undefined,
      steps: numberOf(fields.steps),
      guidance_scale: numberOf(fields.guidance_scale),
      seed: numberOf(fields.seed),
    };
    return runBar.run((job) => edit(panel.querySelector(".stage"), picture, body, job, editPicture));
  });
  return (picture) => {
    input.pictures = [picture];
    fields.text.focus();
  };
}

/** The fields of a request that depend on its kind. */
function kindFields(kind, { strength, image_guidance_scale }, text) {
  const amount =
    kind.strength === undefined
      ? { image_guidance_scale: numberOf(image_guidance_scale) }
      : { strength: numberOf(strength) ?? kind.strength };
  return { [kind.field]: text, ...amount };
}

async function edit(stage, picture, body, job, editPicture) {
  const size = await decode(picture.url).catch(() => null);
  const preview = new Preview(size ? `${size.naturalWidth} / ${size.naturalHeight}` : "1 / 1");
  const before = [...stage.childNodes];
  stage.replaceChildren(preview.element);
  try {
    const [edited] = await generate("v1/edit", body, preview, job);
    const text = body.instruction ?? body.prompt;
    // Without a preview of the original, there is nothing to compare with.
    const shown = size
      ? compare(picture.url, edited.url, text)
      : el("div", { className: "frame" }, el("img", { src: edited.url, alt: text }));
    stage.replaceChildren(shown, pictureActions(edited, editButton(edited, editPicture)));
  } catch (error) {
    stage.replaceChildren(...before);
    throw error;
  }
}
