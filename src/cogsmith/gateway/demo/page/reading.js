// How a text of the person's own reads to the model: each token, given all before it.
import { postJson } from "./api.js";
import * as card from "./card.js";
import { SurpriseChart } from "./chart.js";
import { find, showError } from "./dom.js";
import { summary } from "./likelihood.js";
import { link } from "./linked.js";
import { TokenText } from "./token_text.js";

export class Reading {
  constructor(view) {
    this.model = null;
    this.form = find("form", view);
    this.error = find(".error", view);
    this.paper = find(".paper", view);
    this.text = new TokenText("The text's tokens: the arrow keys move among them");
    this.paper.append(this.text.element);
    this.chart = new SurpriseChart();
    find(".dock", view).append(this.chart.element);
    link(this.text, this.chart, () => ({}));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#read();
    });
  }

  setModel(name) {
    if (name !== this.model) this.#show([]);
    this.model = name;
  }

  async #read() {
    const text = this.form.elements.text.value;
    showError(this.error, text ? null : "Write a text first.");
    if (!text || !this.model) return;
    const button = find("button", this.form);
    button.disabled = true;
    try {
      this.#show((await postJson(`models/${encodeURIComponent(this.model)}/reading`, { text })).tokens);
    } catch (error) {
      this.#show([]);
      showError(this.error, error.message);
    } finally {
      button.disabled = false;
    }
  }

  #show(tokens) {
    card.hide({ atOnce: true });
    this.text.replace(tokens);
    this.paper.hidden = tokens.length === 0;
    const told = summary(tokens);
    const characters = [...this.text.text].length;
    this.chart.show(this.text.tokens, told ? `${(told.total / characters).toFixed(2)} bits a character` : "");
  }
}
