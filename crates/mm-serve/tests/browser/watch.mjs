// Watches a page for errors of its scripts, in its console and against its Content-Security-Policy, and for
// requests to other servers.

/** Collects what a page must not have. */
export class Watch {
  #problems = [];
  #allowed = [];

  /**
   * @param page Playwright's page.
   * @param {string} url The server's address.
   */
  constructor(page, url) {
    page.on("pageerror", (error) => this.#problems.push(`exception: ${error.stack}`));
    page.on("console", (message) => {
      // Chromium reports violations of the policy and failed requests here too.
      if (message.type() === "error" || message.type() === "warning") this.#add(message.text());
    });
    page.on("request", (request) => {
      const { origin, protocol } = new URL(request.url());
      const isOwn = origin === new URL(url).origin || protocol === "data:" || protocol === "blob:";
      if (!isOwn) this.#problems.push(`request to ${request.url()}`);
    });
  }

  /** Allows messages of the console until the next check. */
  allow(pattern) {
    this.#allowed.push(pattern);
  }

  #add(text) {
    if (!this.#allowed.some((pattern) => pattern.test(text))) this.#problems.push(`console: ${text}`);
  }

  /** Throws where there were problems since the last check. */
  check() {
    const problems = this.#problems;
    this.#problems = [];
    this.#allowed = [];
    if (problems.length > 0) throw new Error(problems.join("\n"));
  }
}
