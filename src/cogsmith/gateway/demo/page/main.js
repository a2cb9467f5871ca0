// The page's beginning: models, tabs, and the views.
import { getJson } from "./api.js";
import { Comparison } from "./compare.js";
import { Conversation } from "./conversation.js";
import { find, make } from "./dom.js";
import { LEVELS } from "./likelihood.js";
import * as card from "./card.js";
import { Reading } from "./reading.js";
import * as settings from "./settings.js";

const views = {
  chat: new Conversation(find("#chat")),
  single: new Conversation(find("#single"), { single: true }),
  compare: new Comparison(find("#compare")),
  read: new Reading(find("#read")),
};
const tabs = [...document.querySelectorAll('[role="tab"]')];
const select = find("#model");
const state = find("#state");

function open(name) {
  card.hide({ atOnce: true });
  for (const tab of tabs) {
    const isOpen = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(isOpen));
    tab.tabIndex = isOpen ? 0 : -1;
    find(`#${tab.getAttribute("aria-controls")}`).hidden = !isOpen;
  }
  document.body.dataset.view = name;
  settings.setView(name);
}

function say(text, kind) {
  state.textContent = text;
  state.dataset.kind = kind;
}

const COUNTS = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

function factsOf({ parameters, dtype, device, quantization, max_context: context }) {
  const weights = typeof quantization === "string" ? quantization : dtype;
  const facts = [parameters && `${COUNTS.format(parameters)} parameters`, weights, device, context && `context ${context}`];
  return facts.filter(Boolean).join(" · ");
}

async function choose(name) {
  for (const view of Object.values(views)) view.setModel(null);
  say("getting ready …", "wait");
  try {
    const description = await getJson(`models/${encodeURIComponent(name)}`);
    if (select.value !== name) return;
    settings.setModel(description);
    for (const view of Object.values(views)) view.setModel(name, description);
    say(factsOf(description), "ready");
    document.body.dataset.ready = "true";
  } catch (error) {
    if (select.value === name) say(error.message, "error");
  }
}

async function begin() {
  try {
    const models = await getJson("models");
    select.replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
    select.disabled = models.length < 2;
    await choose(select.value);
  } catch (error) {
    say(error.message, "error");
  }
}

function moveTab(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(event.currentTarget) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => { location.hash = tab.getAttribute("aria-controls"); });
  tab.addEventListener("keydown", moveTab);
}
const asked = () => (location.hash.slice(1) in views ? location.hash.slice(1) : "chat");
addEventListener("hashchange", () => open(asked()));
select.addEventListener("change", () => choose(select.value));
find(".legend ol").append(...LEVELS.map(({ name }, level) =>
  make("li", {}, make("span", { className: `t p${level}`, "aria-hidden": "true" }, "abc"), name)));
if (matchMedia("(max-width: 860px)").matches) {
  for (const group of document.querySelectorAll(".settings details")) group.open = false;
}
open(asked());
begin();
