// A text as its tokens, each coloured by how likely it was. One element takes the focus for all of them: with thousands
// of tokens, a tab stop each would be no help, and a listener each would be slow.
import { announce, make, percent } from "./dom.js";
import { levelOf, probability } from "./likelihood.js";

let texts = 0;

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };

export class TokenText extends EventTarget {
  /** Events: `point` with {index, pinned} when a token is pointed at or moved to, `leave`, `choose` on Enter. */
  constructor(label) {
    super();
    this.tokens = [];
    this.active = -1;
    this.prefix = `text${texts++}`;
    this.element = make("div", { className: "tokens", role: "listbox", tabIndex: 0, "aria-label": label });
    this.element.addEventListener("pointerover", (event) => this.#point(event, false));
    this.element.addEventListener("click", (event) => this.#point(event, true));
    this.element.addEventListener("pointerleave", () => this.dispatchEvent(new Event("leave")));
    this.element.addEventListener("blur", () => this.dispatchEvent(new Event("leave")));
    this.element.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Show tokens behind those that are there. */
  append(tokens) {
    const spans = document.createDocumentFragment();
    for (const token of tokens) {
      spans.append(this.#span(token, this.tokens.length));
      this.tokens.push(token);
    }
    this.element.append(spans);
  }

  /** Show these tokens and no others. */
  replace(tokens) {
    this.element.replaceChildren();
    this.tokens = [];
    this.activate(-1);
    this.append(tokens);
  }

  get text() {
    return this.tokens.map(({ text }) => text).join("");
  }

  /** Mark the token at `index`, -1 for none; returns its element. */
  activate(index) {
    this.element.children[this.active]?.classList.remove("active");
    this.active = index;
    const span = this.element.children[index];
    span?.classList.add("active");
    if (span) this.element.setAttribute("aria-activedescendant", span.id);
    else this.element.removeAttribute("aria-activedescendant");
    return span;
  }

  #span(token, index) {
    const known = token.logprob !== null;
    const level = known ? `p${levelOf(token.logprob)}` : "unpredicted";
    const span = make("span", { className: `t ${level}`, id: `${this.prefix}-${index}`, role: "option" });
    span.textContent = token.text || token.label;
    if (!token.text) span.classList.add(isPart(token) ? "part" : "silent");
    if (token.text.includes("\n")) span.classList.add("line");
    if (token.picked) span.classList.add("picked");
    if (token.forced) span.classList.add("forced");
    return span;
  }

  #point(event, pinned) {
    const span = event.target.closest(".t");
    if (span) this.#show(Number(span.id.slice(this.prefix.length + 1)), pinned);
    else if (!pinned) this.dispatchEvent(new Event("leave"));
  }

  #move(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      if (this.active >= 0) this.#show(this.active, true, true);
      return;
    }
    const step = STEPS[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const from = this.active < 0 && step > 0 ? -1 : this.active;
    const index = Math.min(this.tokens.length - 1, Math.max(0, from + step));
    if (index < 0) return;
    this.#show(index, false);
    this.element.children[index].scrollIntoView({ block: "nearest" });
    const { label, logprob } = this.tokens[index];
    announce(`${label}, ${logprob === null ? "given" : percent(probability(logprob))}`);
  }

  #show(index, pinned, byKey = false) {
    this.dispatchEvent(new CustomEvent("point", { detail: { index, pinned, byKey } }));
  }
}

/** Whether a token without text is a part of a character, whose text comes with the character's last token. */
const isPart = ({ label }) => !/^<.*>$|^\[.*\]$/.test(label);
