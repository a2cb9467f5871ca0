// How likely each of some options is behind a prompt, as bars.
import { postJson } from "./api.js";
import { find, make, percent, showError } from "./dom.js";
import { Tray } from "./images.js";
import { levelOf } from "./likelihood.js";
import * as settings from "./settings.js";

const MEANINGS = {
  sum: "Each option's probability among these: as whole texts, they share 100 %.",
  mean: "The same by the geometric mean of an option's tokens, which does not favour short options.",
  absolute: "The probability that the model goes on with exactly this, whatever else it could say.",
};

export class Comparison {
  constructor(view) {
    this.model = null;
    this.options = [];
    this.form = find("form", view);
    this.results = find(".results", view);
    this.error = find(":scope > .error", view);
    this.tray = new Tray(view);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#compare();
    });
    const { space, template } = this.form.elements;
    // An answer begins without a space, what follows a plain text with one.
    template.addEventListener("change", () => { space.checked = !template.checked; });
    this.results.addEventListener("change", () => this.#show());
  }

  setModel(name, { images = null } = {}) {
    if (name !== this.model) {
      this.results.hidden = true;
      this.tray.setModel(images);
    }
    this.model = name;
  }

  async #compare() {
    const { prompt, options, space, template } = this.form.elements;
    const texts = settings.linesOf(options.value).map((line) => (space.checked ? ` ${line.trimStart()}` : line));
    const unique = [...new Set(texts)];
    showError(this.error, unique.length ? null : "Write one option at least.");
    if (!unique.length || !this.model) return;
    const images = this.tray.uris;
    const asked = template.checked
      ? { messages: [{ role: "user", content: prompt.value, images }], ...settings.prompting() }
      : { text: prompt.value, images };
    Object.assign(asked, settings.imaging());
    const button = find('[type="submit"]', this.form);
    button.disabled = true;
    try {
      const path = `models/${encodeURIComponent(this.model)}/comparison`;
      this.options = (await postJson(path, { ...asked, options: unique })).options.map(measured);
      this.#show();
    } catch (error) {
      this.results.hidden = true;
      showError(this.error, error.message);
    } finally {
      button.disabled = false;
    }
  }

  #show() {
    const by = find("input:checked", this.results).value;
    const shares = sharesBy(by, this.options);
    const ranked = this.options.map((option, index) => ({ option, share: shares[index] })).sort((a, b) => b.share - a.share);
    find(".bars", this.results).replaceChildren(...ranked.map(({ option, share }) => row(option, share)));
    find(".meaning", this.results).textContent = MEANINGS[by];
    this.results.hidden = false;
  }
}

function measured(option) {
  const sum = option.tokens.reduce((total, { logprob }) => total + logprob, 0);
  return { ...option, sum, mean: sum / option.tokens.length };
}

/** Each option's share; sums that differ by much are safe, for the greatest is taken off first. */
export function sharesBy(by, options) {
  if (by === "absolute") return options.map(({ sum }) => Math.exp(sum));
  const best = options.reduce((most, option) => Math.max(most, option[by]), -Infinity);
  const weights = options.map((option) => Math.exp(option[by] - best));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

function row({ tokens, sum, mean }, share) {
  const label = make("span", { className: "option" }, ...tokens.map(({ label: text, logprob }) => {
    const span = make("span", { className: `t p${levelOf(logprob)}`, title: percent(Math.exp(logprob)) });
    span.textContent = text;
    return span;
  }));
  const bar = make("span", { className: "track" }, make("span", { className: "bar" }));
  bar.firstElementChild.style.setProperty("--share", share);
  const count = `${tokens.length} token${tokens.length === 1 ? "" : "s"}`;
  const figures = `${count} · log p ${sum.toFixed(3)}${tokens.length > 1 ? ` · per token ${mean.toFixed(3)}` : ""}`;
  return make("li", {}, label, bar, make("strong", { className: "share" }, percent(share)),
    make("span", { className: "hint" }, figures));
}
