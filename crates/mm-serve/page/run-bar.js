// <run-bar label="Caption">: the submit button of a form, with progress, Cancel, and the error.

import { button, duration, el } from "./dom.js";

/** Runs the work of a form, one job at a time, which Cancel aborts. */
class RunBar extends HTMLElement {
  #controller = null;
  #submit = el("button", { type: "submit", className: "primary" });
  #cancel = button("Cancel", () => this.#controller?.abort(), { hidden: true });
  // The clock changes every second, so it stays outside the live region.
  #clock = el("span", { className: "clock", "aria-hidden": "true" });
  #status = el("output", { className: "status" });
  #progress = el("progress", { className: "idle", "aria-label": "Progress" });
  #error = el("p", { className: "error", role: "alert" });

  connectedCallback() {
    this.#submit.textContent = this.getAttribute("label");
    const row = el("div", { className: "run-row" }, this.#submit, this.#status, this.#clock, this.#cancel);
    this.append(row, this.#progress, this.#error);
  }

  /**
   * Runs a job; does nothing while one runs. Its error is shown; its result, a string, is the status
   * afterwards.
   *
   * @param {(job: {signal: AbortSignal, report: (done: number, total: number) => void})
   *     => Promise<string|void>} work `report` moves the progress bar.
   */
  async run(work) {
    if (this.#controller) return;
    this.#controller = new AbortController();
    const { signal } = this.#controller;
    const start = performance.now();
    const seconds = () => (performance.now() - start) / 1000;
    const timer = setInterval(() => (this.#clock.textContent = `${Math.floor(seconds())}\u00a0s`), 1000);
    this.#begin();
    let status = "";
    let problem = "";
    try {
      const result = await work({ signal, report: (done, total) => this.#report(done, total) });
      status = result ?? `Done in ${duration(seconds())}`;
    } catch (error) {
      if (error.name === "AbortError") status = "Cancelled";
      else problem = error.message;
    }
    clearInterval(timer);
    this.#end(status, problem);
  }

  /** Shows an error that needs no job, such as a missing image. */
  fail(message) {
    this.#error.textContent = message;
    this.#status.textContent = "";
  }

  #begin() {
    this.#error.textContent = "";
    this.#status.textContent = "Working\u2026";
    this.#clock.textContent = "";
    this.#progress.removeAttribute("value");
    this.#progress.classList.remove("idle");
    this.#cancel.hidden = false;
    this.#submit.setAttribute("aria-disabled", "true"); // `disabled` would lose the focus
  }

  #report(done, total) {
    this.#progress.max = total;
    this.#progress.value = done;
    this.#clock.textContent = `${done}\u2009/\u2009${total}`;
  }

  #end(status, problem) {
    const hadFocus = document.activeElement === this.#cancel;
    this.#controller = null;
    this.#error.textContent = problem;
    this.#status.textContent = status;
    this.#clock.textContent = "";
    this.#progress.classList.add("idle");
    this.#cancel.hidden = true;
    this.#submit.removeAttribute("aria-disabled");
    if (hadFocus) this.#submit.focus();
  }
}

customElements.define("run-bar", RunBar);
