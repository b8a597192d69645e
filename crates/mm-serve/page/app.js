// The page of `mm serve`: starts, and shows a tab for each task that the server has a model for.
//
// api.js          requests, keys, server-sent events     dom.js          elements, numbers as text
// files.js        image files as data URLs               tabs.js         the tab list
// image-input.js  <image-input>                          run-bar.js      <run-bar>: submit, progress, Cancel
// viewer.js       the dialog with one picture            key-dialog.js   the dialog for the API key
// search.js       the search panel, with query.js (its parts), results.js (its grid), heat.js (heat maps)
// classify.js, caption.js, ask.js, draw.js, edit.js (with mask.js and compare.js), score.js: a panel each
//
// theme.js stands apart: it sets light or dark before the first paint.

import "./image-input.js";
import "./run-bar.js";
import { ApiError, apiKey, get, setKeyPrompt } from "./api.js";
import { startAsk } from "./ask.js";
import { startCaption } from "./caption.js";
import { startClassify } from "./classify.js";
import { startDraw } from "./draw.js";
import { startEdit } from "./edit.js";
import { KeyDialog } from "./key-dialog.js";
import { startScore } from "./score.js";
import { startSearch } from "./search.js";
import { Tabs } from "./tabs.js";
import { button, el } from "./dom.js";

/** Milliseconds between two requests to a server that is loading its models. */
const LOADING_INTERVAL = 1000;

/** The panels in the order of their tabs, with the task of the models that they use. */
const PANELS = [
  { id: "search", task: "clip", start: startSearch },
  { id: "classify", task: "clip", start: startClassify },
  { id: "caption", task: "caption", start: startCaption },
  { id: "ask", task: "vqa", start: startAsk },
  { id: "draw", task: "diffusion", start: startDraw },
  { id: "edit", task: "diffusion", start: startEdit },
  { id: "score", task: "reward", start: startScore },
];

const notice = document.getElementById("notice");
const keyDialog = new KeyDialog(document.getElementById("key-dialog"));

async function start() {
  notice.replaceChildren("Connecting\u2026");
  try {
    await modelsLoaded();
    const { data: models } = await get("v1/models");
    const indexes = models.some((model) => model.task === "clip") ? await listIndexes() : [];
    showPanels(models, indexes);
    keyDialog.showButton(apiKey() !== null);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    notice.replaceChildren(el("p", { className: "error" }, error.message), button("Try again", start));
  }
}

/** Resolves once the server has opened its models. */
async function modelsLoaded() {
  for (;;) {
    try {
      await get("healthz");
      return;
    } catch (error) {
      if (error.status !== 503) throw error;
    }
    notice.replaceChildren("The server is loading its models\u2026");
    await new Promise((resolve) => setTimeout(resolve, LOADING_INTERVAL));
  }
}

/** The indexes; none where the server was built or started without search. */
async function listIndexes() {
  try {
    return (await get("v1/indexes")).data;
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

function showPanels(models, indexes) {
  const tabs = new Tabs(document.querySelector("[role=tablist]"));
  const served = new Map();
  const editPicture = (picture) => {
    tabs.open("edit");
    served.get("edit")(picture);
  };
  for (const { id, task, start } of PANELS) {
    const names = models.filter((model) => model.task === task).map((model) => model.id);
    const isServed = names.length > 0 && (id !== "search" || indexes.length > 0);
    if (!isServed) continue;
    const panel = document.getElementById(id);
    fillModels(panel, names);
    served.set(id, start(panel, { indexes, editPicture }));
  }
  notice.hidden = served.size > 0;
  if (served.size === 0) notice.replaceChildren("The server has no model that this page can use.");
  tabs.show([...served.keys()]);
  routeImages(tabs);
  focusSearchBySlash(tabs);
}

/** Fills the choice of a model; a single one needs none. */
function fillModels(panel, names) {
  const select = panel.querySelector("select[name=model]");
  if (!select) return;
  select.replaceChildren(...names.map((name) => new Option(name)));
  select.closest("label").hidden = names.length < 2;
}

/** Sends images that are pasted or dropped anywhere to the open panel. */
function routeImages(tabs) {
  const input = () => tabs.panel?.querySelector("image-input");
  // The browser would leave the page for a dropped file; a dropped text belongs to the field below it.
  const hasFiles = (event) => event.dataTransfer.types.includes("Files");
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    input()?.addTransfer(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => {
    if (input()?.addTransfer(event.clipboardData)) event.preventDefault();
  });
}

/** Makes `/` focus the search box, as long as no text is being written. */
function focusSearchBySlash(tabs) {
  document.addEventListener("keydown", (event) => {
    const isText = event.target.closest("input:not([type=range], [type=checkbox], [type=radio]), textarea");
    const isModified = event.ctrlKey || event.metaKey || event.altKey;
    if (event.key !== "/" || isText || isModified || document.querySelector("dialog[open]")) return;
    if (!tabs.open("search")) return;
    event.preventDefault();
    document.getElementById("search-text").focus();
  });
}

setKeyPrompt((problem) => keyDialog.prompt(problem));
start();
