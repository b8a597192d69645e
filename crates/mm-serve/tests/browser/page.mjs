// Drives the page in Chromium: every panel once, keys, themes, a narrow screen, an error, a cancelled drawing.
// README.md has the arguments.

import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { KEY, KEY_FLOWS } from "./key-flows.mjs";
import { startMock } from "./mock.mjs";
import { PAGE_FLOWS } from "./page-flows.mjs";
import { PANEL_FLOWS } from "./panel-flows.mjs";
import { SEARCH_FLOWS } from "./search-flows.mjs";
import { Watch } from "./watch.mjs";

const FLOWS = { ...PAGE_FLOWS, ...SEARCH_FLOWS, ...PANEL_FLOWS };

const PAGE = fileURLToPath(new URL("../../page", import.meta.url));

const { values: args } = parseArgs({
  options: {
    modules: { type: "string", default: "." },
    screenshots: { type: "string" },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    url: { type: "string" },
    key: { type: "string" },
  },
});

/** Milliseconds until a step counts as hung: against a real model, a drawing may take minutes. */
const TIMEOUT = args.url ? 300_000 : 15_000;

async function main() {
  const { chromium } = createRequire(join(resolve(args.modules), "package.json"))("playwright-core");
  if (args.screenshots) await mkdir(args.screenshots, { recursive: true });
  // Chromium has no sandbox for root.
  const flags = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const browser = await chromium.launch({ executablePath: args.chromium, args: flags });
  try {
    if (args.url) return await run(browser, FLOWS, { url: args.url });
    const mock = await startMock(PAGE);
    const locked = await startMock(PAGE, { key: KEY, loadingAnswers: 1 });
    try {
      const opened = await run(browser, FLOWS, mock);
      return (await run(browser, KEY_FLOWS, locked)) && opened;
    } finally {
      mock.close();
      locked.close();
    }
  } finally {
    await browser.close();
  }
}

/** Runs flows one after the other in one page, up to the first that fails; returns whether all pass. */
async function run(browser, flows, server) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light" });
  context.setDefaultTimeout(TIMEOUT);
  if (args.key) await context.addInitScript((key) => sessionStorage.setItem("mm-key", key), args.key);
  const page = await context.newPage();
  const watch = new Watch(page, server.url);
  const test = { page, watch, url: server.url, mock: args.url ? null : server, shoot };
  try {
    for (const [name, flow] of Object.entries(flows)) {
      try {
        const skipped = await flow(test);
        watch.check();
        console.log(skipped ? `skipped  ${name}: ${skipped}` : `ok       ${name}`);
      } catch (error) {
        console.log(`FAILED   ${name}: ${error.stack}`);
        await screenshot(page, "failed").catch(() => {}); // a page that never loaded cannot be drawn
        return false; // the later ones begin where this one ends
      }
    }
    return true;
  } finally {
    await context.close();
  }
}

/** Takes a screenshot in light, dark and narrow, and checks that the narrow page does not scroll sideways. */
async function shoot(page, name) {
  await screenshot(page, `${name}-light`);
  await page.emulateMedia({ colorScheme: "dark" });
  await screenshot(page, `${name}-dark`);
  await page.emulateMedia({ colorScheme: "light" });
  const size = page.viewportSize();
  await page.setViewportSize({ width: 360, height: 740 });
  await screenshot(page, `${name}-narrow`, true);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.setViewportSize(size);
  if (width > 360) throw new Error(`${name} is ${width} pixels wide on a screen of 360`);
}

async function screenshot(page, name, fullPage = false) {
  if (!args.screenshots) return;
  const path = join(args.screenshots, `${name}.png`);
  await page.screenshot({ path, fullPage, animations: "disabled" });
}

process.exitCode = (await main()) ? 0 : 1;
