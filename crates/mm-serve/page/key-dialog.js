// The dialog for the API key, which opens when the server answers 401.

import { setApiKey } from "./api.js";

/** Obtains an API key from the user. */
export class KeyDialog {
  #dialog;
  #problem;
  #input;

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.#dialog = dialog;
    this.#problem = dialog.querySelector("[role=alert]");
    this.#input = dialog.querySelector("input");
    document.getElementById("key").onclick = () => this.prompt(null);
    dialog.querySelector("[value=cancel]").onclick = () => dialog.close("cancel");
  }

  /** Shows the button that opens the dialog, for a change of keys. */
  showButton(isShown) {
    document.getElementById("key").hidden = !isShown;
  }

  /** Opens the dialog; resolves to the stored key, or to null where the user closes it. */
  prompt(problem) {
    this.#problem.textContent = problem ?? "";
    this.#input.value = "";
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    return new Promise((resolve) => {
      this.#dialog.addEventListener("close", () => resolve(this.#result()), { once: true });
    });
  }

  #result() {
    const key = this.#input.value.trim();
    this.#input.value = "";
    if (this.#dialog.returnValue !== "use" || key === "") return null;
    setApiKey(key);
    this.showButton(true);
    return key;
  }
}
