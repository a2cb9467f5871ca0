// What the person sets: template and system prompt, sampling, and the constraint.
import { find, make, showError } from "./dom.js";

const CONSTRAINTS = {
  choice: { title: "Texts that the answer may be, one on each line", example: "yes\nno\nperhaps" },
  regex: { title: "Pattern that the whole answer matches", example: "[A-Z][a-z]+, [0-9]{4}" },
  json_schema: {
    title: "Schema of the JSON that the answer is",
    example: '{\n  "type": "object",\n  "properties": {\n    "name": {"type": "string", "maxLength": 20},\n    "age": {"type": "integer"}\n  },\n  "required": ["name", "age"],\n  "additionalProperties": false\n}',
  },
};
const SINGLE_MAX = 512;
const GROUPS = {
  chat: ["prompting", "imaging", "sampling", "constraint"],
  single: ["prompting", "imaging", "sampling", "constraint"],
  compare: ["prompting", "imaging"],
  read: [],
};

const field = (id) => find(`#${id}`);
const kept = { chat: {}, single: {} };
const texts = {};
let model = null;
let view = null;

/** A setting that cannot be meant; it has been shown where it stands. */
export class Unfit extends Error {}

/** Say which model is talked to. */
export function setModel(description) {
  keep();
  model = description;
  for (const settings of Object.values(kept)) settings.template = undefined;
  if (model.images) {
    field("image-transform").value = model.images.transform;
    field("placeholder").textContent = model.images.placeholder;
  }
  showGroups();
  fit();
}

/** Say which view is open: each has its own range of lengths, and its own template. */
export function setView(name) {
  keep();
  view = name;
  showGroups();
  fit();
}

function showGroups() {
  for (const id of GROUPS.chat) field(id).hidden = !GROUPS[view].includes(id) || id === "imaging" && !model?.images;
}

/** Remember what was set for the view that is left. */
function keep() {
  if (model && view in kept) kept[view] = { template: field("template").value, length: field("max-tokens").value };
}

/** Give the settings the ranges that they have for this model and view. */
function fit() {
  if (!model) return;
  fillTemplates();
  const length = field("max-tokens");
  const isChat = view === "chat";
  find(".name", length.parentElement).textContent = isChat ? "Max response" : "Max length";
  const most = isChat ? Math.max(1, Math.floor(model.max_context / 2)) : Math.min(SINGLE_MAX, model.max_context);
  length.max = most;
  length.value = Math.min(most, kept[view]?.length ?? (isChat ? 256 : 128));
  length.dispatchEvent(new Event("input"));
}

function fillTemplates() {
  const select = field("template");
  const fit = model.templates.filter(({ conversation }) => view !== "chat" || conversation);
  const group = (label, templates) => make("optgroup", { label }, ...templates.map(({ id, name, own }) =>
    make("option", { value: id }, own ? `the model's own${name === "own" ? "" : ` (${name})`}` : name)));
  const groups = [
    ["", fit.filter(({ own }) => own)],
    ["for one instruction", fit.filter(({ own, conversation }) => !own && !conversation)],
    ["for conversations", fit.filter(({ own, conversation }) => !own && conversation)],
  ];
  select.replaceChildren(...groups.filter(([, list]) => list.length).map(([label, list]) => group(label, list)));
  const before = kept[view]?.template;
  const usual = ["own", view === "chat" ? "default" : "alpaca"];
  select.value = [before, ...usual].find((id) => fit.some((one) => one.id === id)) ?? fit[0]?.id;
  showSystem();
}

function showSystem() {
  const chosen = model.templates.find(({ id }) => id === field("template").value);
  find(".system", field("prompting")).hidden = !chosen?.conversation;
  const input = find("#single .input");
  input.hidden = !chosen?.input;
  find("textarea", input).disabled = input.hidden;
}

/** How messages become a prompt. */
export function prompting() {
  const system = find(".system", field("prompting")).hidden ? "" : field("system").value.trim();
  return { template: field("template").value, system };
}

/** How images become pixels, where the model reads some. */
export const imaging = () => (model.images ? { image_transform: field("image-transform").value } : {});

/** What a generation is asked for. Throws Unfit, having said why in its place. */
export function generation() {
  const seed = field("seed");
  if (!seed.reportValidity()) throw new Unfit();
  return {
    max_tokens: Number(field("max-tokens").value),
    temperature: Number(field("temperature").value),
    top_p: Number(field("top-p").value),
    seed: seed.value === "" ? null : Number(seed.value),
    constraint: constraint(),
  };
}

function constraint() {
  const kind = field("constraint-kind").value;
  const text = field("constraint-text").value;
  refuseConstraint(null);
  if (!kind) return null;
  const fault = faultOf(kind, text);
  if (fault) {
    refuseConstraint(fault);
    throw new Unfit();
  }
  return { [kind]: kind === "choice" ? linesOf(text) : text };
}

export const linesOf = (text) => text.split("\n").map((line) => line.trimEnd()).filter((line) => line !== "");

function faultOf(kind, text) {
  if (kind === "choice") return linesOf(text).length ? null : "Write one choice at least.";
  if (!text.trim()) return "This is empty.";
  if (kind === "regex") return null;
  try {
    const schema = JSON.parse(text);
    return schema !== null && typeof schema === "object" && !Array.isArray(schema) ? null : "A schema is a JSON object.";
  } catch (error) {
    return `This is no JSON: ${error.message}`;
  }
}

/** Show what is wrong with the constraint beside it; null takes it away. */
export function refuseConstraint(reason) {
  showError(field("constraint-error"), reason && reason.replace(/^constraint\.\w+ /, "This ").replace(/\n +fix: /, "\n"));
  field("constraint-text").setAttribute("aria-invalid", String(Boolean(reason)));
  if (reason) {
    field("constraint").open = true;
    field("constraint-text").focus();
  }
}

export const isOfConstraint = (reason) => /constraint/.test(reason) && field("constraint-kind").value !== "";

function chooseConstraint() {
  const kind = field("constraint-kind").value;
  const area = field("constraint-text");
  const label = area.closest("label");
  if (area.dataset.kind) texts[area.dataset.kind] = area.value;
  label.hidden = !kind;
  area.dataset.kind = kind;
  refuseConstraint(null);
  if (!kind) return;
  label.firstElementChild.textContent = CONSTRAINTS[kind].title;
  area.value = texts[kind] ?? CONSTRAINTS[kind].example;
  area.rows = Math.min(9, area.value.split("\n").length + 1);
}

/** Tie each slider to its number. */
function tie(slider) {
  const number = slider.nextElementSibling;
  if (!number) return;
  const show = () => {
    number.min = slider.min;
    number.max = slider.max;
    number.step = slider.step === "1" ? "1" : "any";
    number.value = slider.value;
  };
  slider.addEventListener("input", show);
  number.addEventListener("change", () => {
    // A slider keeps what it is given within its range.
    slider.step = slider.step === "1" ? "1" : "any";
    slider.value = number.value === "" ? slider.defaultValue : number.value;
    show();
  });
  show();
}

document.querySelectorAll('.slider input[type="range"]').forEach(tie);
field("template").addEventListener("change", showSystem);
field("constraint-kind").addEventListener("change", chooseConstraint);
field("constraint-text").addEventListener("input", () => showError(field("constraint-error"), null));
