// What else could have come at a token: a card beside it, with a bar for each alternative.
import { find, make, percent } from "./dom.js";
import { bits, probability } from "./likelihood.js";

const LINGER = 220;
const GAP = 6;

const element = find("#card");
let hiding = 0;
let pinned = false;
let beside = null;
let close = () => {};

/** Show the card of `token` beside `anchor`. `choose`, where there is one, is called with the alternative taken. */
export function show(anchor, token, { choose, why, pin = false, focus = false, onClose = () => {} }) {
  if (pinned && !pin) return;
  window.clearTimeout(hiding);
  if (close !== onClose) close();
  close = onClose;
  pinned = pin;
  beside = anchor;
  element.replaceChildren(...content(token, choose, why));
  element.classList.toggle("pinned", pinned);
  element.hidden = false;
  place(anchor);
  if (focus) find("button", element)?.focus();
}

/** Hide the card: soon, so that the pointer may go there first, or at once. */
export function hide({ atOnce = false } = {}) {
  window.clearTimeout(hiding);
  if (atOnce) return end();
  if (!pinned) hiding = window.setTimeout(end, LINGER);
}

function end() {
  pinned = false;
  element.hidden = true;
  const told = close;
  close = () => {};
  told();
}

function content(token, choose, why) {
  const known = token.logprob !== null;
  const title = make("div", { className: "title" }, make("strong", {}, visible(token.label)),
    make("span", { className: "hint" }, `id ${token.id}`));
  if (!known) return [title, make("p", { className: "hint" }, "Nothing was before it, so nothing was predicted.")];
  const figures = make("p", { className: "figures" }, `${percent(probability(token.logprob))}`,
    make("span", { className: "hint" }, ` · ${bits(token.logprob).toFixed(2)} bits of surprise`));
  if (token.forced) {
    return [title, figures, make("p", { className: "hint" }, "Forced: the constraint left nothing else.")];
  }
  const rows = token.top.map((one) => row(one, one.id === token.id, choose));
  const rest = 1 - token.top.reduce((sum, { logprob }) => sum + probability(logprob), 0);
  if (rest > 0.0005 && rows.length) rows.push(restRow(rest));
  const foot = choose ? "Choose one to go on from there." : why ?? "";
  return [title, figures, make("ol", {}, ...rows), make("p", { className: "hint foot" }, foot)];
}

function row(alternative, isTaken, choose) {
  const share = probability(alternative.logprob);
  const bar = make("span", { className: "bar" });
  bar.style.setProperty("--share", share);
  const parts = [bar, make("span", { className: "label" }, visible(alternative.label)),
    make("span", { className: "share" }, percent(share))];
  if (!choose || isTaken) {
    const still = make("div", { className: "alternative" }, ...parts);
    if (isTaken) still.setAttribute("aria-current", "true");
    return make("li", {}, still);
  }
  const button = make("button", { type: "button", className: "alternative" }, ...parts);
  button.setAttribute("aria-label", `Go on with ${alternative.label}, ${percent(share)}`);
  button.addEventListener("click", () => {
    hide({ atOnce: true });
    choose(alternative);
  });
  return make("li", {}, button);
}

function restRow(share) {
  const bar = make("span", { className: "bar" });
  bar.style.setProperty("--share", share);
  return make("li", { className: "rest" }, make("div", { className: "alternative" }, bar,
    make("span", { className: "label" }, "all others"), make("span", { className: "share" }, percent(share))));
}

/** A token's text with its spaces and line ends to be seen. */
const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");

function place(anchor) {
  // On a narrow screen the style sheet keeps it at the bottom.
  const box = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = element;
  const below = box.bottom + GAP + height <= window.innerHeight || box.top < height + GAP;
  element.style.left = `${Math.max(GAP, Math.min(box.left - 8, window.innerWidth - width - GAP))}px`;
  element.style.top = `${below ? Math.min(box.bottom + GAP, window.innerHeight - height - GAP) : box.top - GAP - height}px`;
}

element.addEventListener("pointerenter", () => window.clearTimeout(hiding));
element.addEventListener("pointerleave", () => hide());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !element.hidden) end();
});
document.addEventListener("pointerdown", (event) => {
  if (pinned && !element.contains(event.target) && !event.target.closest(".t")) end();
});
document.addEventListener("scroll", () => {
  if (element.hidden) return;
  const { top, bottom } = beside.getBoundingClientRect();
  if (bottom < 0 || top > window.innerHeight || !beside.isConnected) end();
  else place(beside);
}, { capture: true, passive: true });
