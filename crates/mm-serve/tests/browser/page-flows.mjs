// The page as a whole: its tabs, its theme, a server that is gone.
//
// A flow is named by what it shows, and returns a reason where it is skipped: the server does not serve its
// panel. Flows run in one page, each where the one before it ends.

import assert from "node:assert/strict";

export const PAGE_FLOWS = {
  "tabs are those of the served models": async ({ page, url, mock }) => {
    await page.goto(url);
    await page.getByRole("tab", { selected: true }).waitFor();
    const tabs = await page.getByRole("tab").allTextContents();
    if (mock) assert.deepEqual(tabs, ["Search", "Classify", "Caption", "Ask", "Draw", "Edit", "Score"]);
  },

  "arrow keys move between tabs": async ({ page }) => {
    const tabs = page.getByRole("tab");
    if ((await tabs.count()) < 2) return "one tab";
    await tabs.first().focus();
    await page.keyboard.press("ArrowRight");
    assert.equal(await tabs.nth(1).getAttribute("aria-selected"), "true");
    await page.keyboard.press("End");
    assert.equal(await tabs.last().getAttribute("aria-selected"), "true");
    await page.keyboard.press("ArrowRight");
    assert.equal(await tabs.first().getAttribute("aria-selected"), "true");
    return undefined;
  },

  "the theme is kept": async ({ page }) => {
    const theme = page.getByRole("button", { name: "Dark theme" });
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await background();
    await theme.click();
    const dark = await background();
    assert.notEqual(dark, light);
    await page.reload();
    await page.getByRole("tab", { selected: true }).waitFor();
    assert.equal(await background(), dark);
    await theme.click();
    assert.equal(await background(), light);
    await page.evaluate(() => localStorage.clear());
    await page.reload();
  },

  "a server that is gone is reported": async ({ page, watch }) => {
    watch.allow(/ERR_FAILED/);
    await page.route("**/healthz", (route) => route.abort());
    await page.reload();
    await page.getByText("The server cannot be reached").waitFor();
    await page.unroute("**/healthz");
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("tab", { selected: true }).waitFor();
  },
};
