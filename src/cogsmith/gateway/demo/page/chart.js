// Surprise along a text: a bar for each token, in bits.
import { make } from "./dom.js";
import { bits, levelOf, summary } from "./likelihood.js";

const HEIGHT = 96;
const LEFT = 34;
const TOP = 6;
const BOTTOM = 7;
const WIDEST = 14;
const LEAST_BITS = 4;

export class SurpriseChart extends EventTarget {
  /** Events: `point` with the index of the token whose bar is pointed at, `leave`. */
  constructor() {
    super();
    this.tokens = [];
    this.active = -1;
    this.canvas = make("canvas", { role: "img" });
    this.figures = make("p", { className: "figures" });
    this.element = make("figure", { className: "surprise", hidden: true },
      make("figcaption", {}, make("span", {}, "Surprise, in bits"), this.figures), this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => this.dispatchEvent(new Event("leave")));
    new ResizeObserver(() => this.#later()).observe(this.element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#later());
  }

  /** Show these tokens; the list may grow before the next call. `more` is said beside the figures. */
  show(tokens, more = "") {
    this.tokens = tokens;
    this.more = more;
    this.element.hidden = tokens.length === 0;
    this.#later();
  }

  /** Mark a token's bar, -1 for none. */
  mark(index) {
    this.active = index;
    this.#later();
  }

  #later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.#draw();
    });
  }

  #point(event) {
    const { left } = this.canvas.getBoundingClientRect();
    const index = Math.floor((event.clientX - left - LEFT) / this.step);
    if (index >= 0 && index < this.tokens.length) {
      this.dispatchEvent(new CustomEvent("point", { detail: { index } }));
    } else {
      this.dispatchEvent(new Event("leave"));
    }
  }

  #draw() {
    const told = summary(this.tokens);
    this.#describe(told);
    const width = this.canvas.clientWidth;
    if (!width) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = width * scale;
    this.canvas.height = HEIGHT * scale;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.canvas);
    const surprises = this.tokens.map(({ logprob }) => (logprob === null ? 0 : bits(logprob)));
    const top = Math.max(LEAST_BITS, surprises.reduce((most, one) => Math.max(most, one), 0));
    const height = (value) => (value / top) * (HEIGHT - TOP - BOTTOM);
    this.#grid(pen, style, width, top, height);
    this.step = Math.min(WIDEST, (width - LEFT) / this.tokens.length);
    this.#bars(pen, style, surprises, height);
    if (told) this.#mean(pen, style, width, HEIGHT - BOTTOM - height(told.mean));
  }

  #grid(pen, style, width, top, height) {
    const every = top > 24 ? 10 : top > 10 ? 5 : 2;
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.fillStyle = style.getPropertyValue("--muted");
    pen.font = "11px system-ui, sans-serif";
    pen.textAlign = "right";
    for (let value = 0; value <= top; value += every) {
      const y = Math.round(HEIGHT - BOTTOM - height(value)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT - 4, y);
      pen.lineTo(width, y);
      pen.stroke();
      pen.fillText(String(value), LEFT - 8, Math.max(10, y + 4));
    }
  }

  #bars(pen, style, surprises, height) {
    const colours = [0, 1, 2, 3, 4, 5].map((level) => style.getPropertyValue(`--bar${level}`));
    const gap = this.step > 4 ? 1.5 : 0;
    surprises.forEach((value, index) => {
      const { logprob } = this.tokens[index];
      const tall = Math.max(1, height(value));
      pen.fillStyle = logprob === null ? style.getPropertyValue("--line") : colours[levelOf(logprob)];
      pen.fillRect(LEFT + index * this.step, HEIGHT - BOTTOM - tall, Math.max(0.5, this.step - gap), tall);
    });
    if (this.active >= 0) {
      pen.strokeStyle = style.getPropertyValue("--text");
      pen.lineWidth = 1.5;
      pen.strokeRect(LEFT + this.active * this.step - 0.75, TOP - 3, Math.max(2, this.step - gap + 1.5), HEIGHT - TOP - BOTTOM + 3);
    }
  }

  #mean(pen, style, width, y) {
    pen.strokeStyle = style.getPropertyValue("--muted");
    pen.lineWidth = 1;
    pen.setLineDash([4, 4]);
    pen.beginPath();
    pen.moveTo(LEFT, y);
    pen.lineTo(width, y);
    pen.stroke();
    pen.setLineDash([]);
  }

  #describe(told) {
    const said = told === null ? [] : [
      `${told.count} token${told.count === 1 ? "" : "s"}`,
      `mean ${told.mean.toFixed(2)} bits (dashed)`,
      `perplexity ${told.perplexity.toPrecision(3)}`,
    ];
    if (this.more) said.push(this.more);
    this.figures.textContent = said.join(" · ");
    this.canvas.setAttribute("aria-label", `A bar for each token's surprise: ${said.join(", ")}`);
  }
}
