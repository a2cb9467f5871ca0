// The chat, and the single turn: a form, the turns that came of it, and a chart of the answer that is looked at.
import { Answer } from "./answer.js";
import * as card from "./card.js";
import { SurpriseChart } from "./chart.js";
import { find, isAtEnd, make, showError } from "./dom.js";
import { thumbnail, Tray } from "./images.js";
import { link } from "./linked.js";
import * as settings from "./settings.js";

export class Conversation {
  /** `view` is the section in the document; with `single` each turn takes the place of the one before. */
  constructor(view, { single = false } = {}) {
    this.single = single;
    this.turns = [];
    this.model = null;
    this.form = find("form", view);
    this.list = find(".turns", view);
    this.tray = new Tray(view);
    this.chart = new SurpriseChart();
    find(".dock", view).append(this.chart.element);
    this.#listen();
  }

  setModel(name, { images = null } = {}) {
    if (name !== this.model) {
      this.clear();
      this.tray.setModel(images);
    }
    this.model = name;
  }

  clear() {
    this.running?.stop();
    card.hide({ atOnce: true });
    this.turns.splice(0).forEach(({ element }) => element.remove());
    this.chart.show([]);
    this.#refresh();
  }

  get running() {
    return this.turns.find(({ answer }) => answer.isRunning)?.answer;
  }

  #listen() {
    const { message } = this.form.elements;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target.type !== "textarea" || event.isComposing || (event.shiftKey || this.single) && !event.ctrlKey) return;
      event.preventDefault();
      this.#submit();
    });
    message.addEventListener("input", () => this.#refresh());
    find(".stop", this.form).addEventListener("click", () => this.running?.stop());
    find(".clear", this.form).addEventListener("click", () => {
      this.tray.clear();
      this.clear();
    });
    this.tray.addEventListener("change", () => this.#refresh());
    find(".undo", this.form)?.addEventListener("click", () => this.#undo());
    this.#refresh();
  }

  #refresh() {
    const running = Boolean(this.running);
    const submit = find('[type="submit"]', this.form);
    submit.hidden = running;
    submit.disabled = this.#isEmpty;
    find(".stop", this.form).hidden = !running;
    find(".clear", this.form).disabled = this.turns.length === 0 && !this.tray.pictures.length;
    const undo = find(".undo", this.form);
    if (undo) undo.disabled = this.turns.length === 0 || running;
    const empty = find(".empty", this.list);
    if (empty) empty.hidden = this.turns.length > 0;
  }

  /** Whether there is nothing to send: an image may go alone. */
  get #isEmpty() {
    return !this.form.elements.message.value.trim() && !this.tray.pictures.length;
  }

  async #submit() {
    const { message, input } = this.form.elements;
    if (this.#isEmpty || this.running || !this.model || this.#refuseImages()) return;
    const asked = this.#settings();
    if (!asked) return;
    if (this.single) this.clear();
    const said = { role: "user", content: message.value, input: input && !input.disabled ? input.value : "", images: this.tray.uris };
    const turn = this.#turn(said, this.tray.pictures);
    if (!this.single) {
      message.value = "";
      this.tray.clear();
    }
    await this.#generate(turn, (answer) => answer.generate(asked));
  }

  #settings() {
    try {
      return settings.generation();
    } catch (error) {
      if (error instanceof settings.Unfit) return null;
      throw error;
    }
  }

  #undo() {
    const turn = this.turns.pop();
    if (!turn) return;
    card.hide({ atOnce: true });
    turn.element.remove();
    // What was said comes back whole, to be said anew, unless something else is being written.
    if (this.#isEmpty) {
      this.form.elements.message.value = turn.said.content;
      this.tray.put(turn.pictures);
    }
    this.form.elements.message.focus();
    this.chart.show(this.turns.at(-1)?.answer.text.tokens ?? []);
    this.#refresh();
  }

  /** Everything said so far, with `said` at the end. */
  #messages(said) {
    const before = this.turns.flatMap((turn) => [turn.said, { role: "assistant", content: turn.answer.text.text.trim() }]);
    return [...before, said];
  }

  /** Say so, and return true, where the conversation's images are too many to be sent together. */
  #refuseImages() {
    const pictures = [...(this.single ? [] : this.turns.flatMap((turn) => turn.pictures)), ...this.tray.pictures];
    const isTooMuch = pictures.length > 0 && this.tray.tooMuch(pictures) !== null;
    if (isTooMuch) showError(this.tray.error, "With those said before, these are more images than can be sent: clear the conversation.");
    return isTooMuch;
  }

  #turn(said, pictures) {
    const asked = { messages: this.#messages(said), ...settings.prompting(), ...settings.imaging() };
    const events = new EventTarget();
    const answer = new Answer(this.model, asked, events);
    const question = make("div", { className: "question" }, said.content);
    if (pictures.length) question.prepend(make("div", { className: "pictures" }, ...pictures.map(thumbnail)));
    if (said.input) question.append(make("div", { className: "given" }, said.input));
    const foot = make("div", { className: "foot" });
    const error = make("p", { className: "error", role: "alert", hidden: true });
    const paper = make("div", { className: "answer paper" }, answer.text.element, error, foot);
    const turn = { said, pictures, answer, foot, error, element: make("article", { className: "turn" }, ...(this.single ? [] : [question]), paper) };
    events.addEventListener("change", () => this.#show(turn));
    events.addEventListener("tokens", () => this.#grow(turn));
    link(answer.text, this.chart, (index) => this.#alternatives(turn, index));
    this.turns.push(turn);
    this.list.append(turn.element);
    turn.element.scrollIntoView({ block: "nearest" });
    return turn;
  }

  async #generate(turn, work) {
    settings.refuseConstraint(null);
    const error = await work(turn.answer);
    if (!error || !settings.isOfConstraint(error)) return;
    settings.refuseConstraint(error);
    showError(turn.error, "The constraint cannot be used: see there.");
  }

  #alternatives(turn, index) {
    const { answer } = turn;
    if (this.chart.tokens !== answer.text.tokens) this.#chart(turn);
    if (answer.whyFixed || this.running) return { why: answer.whyFixed ?? "" };
    return { choose: (alternative) => this.#branch(turn, index, alternative) };
  }

  /** Go on from the token at `index` with another one in its place. What was said after this turn goes. */
  #branch(turn, index, { id, label, logprob }) {
    const { tokens, settings: asked } = turn.answer.version;
    const chosen = { ...tokens[index], id, label, logprob, text: label, picked: true };
    this.turns.splice(this.turns.indexOf(turn) + 1).forEach(({ element }) => element.remove());
    this.#generate(turn, (answer) => answer.generate(asked, [...tokens.slice(0, index), chosen]));
  }

  #grow(turn) {
    const follow = isAtEnd(this.list);
    if (this.running === turn.answer) this.#chart(turn);
    if (follow) this.list.scrollTop = this.list.scrollHeight;
  }

  #chart({ answer }) {
    this.chart.show(answer.text.tokens);
  }

  #show(turn) {
    const { answer, foot, error } = turn;
    const { version } = answer;
    const follow = isAtEnd(this.list);
    turn.element.classList.toggle("running", answer.isRunning);
    showError(error, version.error);
    foot.replaceChildren(...this.#tools(turn), make("span", { className: "hint" }, answer.isRunning ? "" : answer.ending));
    this.#chart(turn);
    if (follow) this.list.scrollTop = this.list.scrollHeight;
    this.#refresh();
  }

  #tools(turn) {
    const { answer } = turn;
    if (answer.isRunning) return [];
    const { versions, current, version } = answer;
    const tool = (text, title, work, disabled = false) => {
      const button = make("button", { type: "button", className: "tool", title, disabled, "aria-label": title }, text);
      button.addEventListener("click", work);
      return button;
    };
    const tools = [];
    if (versions.length > 1) {
      tools.push(tool("‹", "The version before", () => answer.turnTo(current - 1), current === 0),
        make("span", { className: "count" }, `${current + 1} / ${versions.length}`),
        tool("›", "The next version", () => answer.turnTo(current + 1), current === versions.length - 1));
    }
    if (turn === this.turns.at(-1)) {
      tools.push(tool("Again", "Answer again, as the settings are now", () => {
        const asked = this.#settings();
        if (asked) this.#generate(turn, () => answer.generate(asked));
      }));
      const canGoOn = ["length", "cancelled"].includes(version.end?.reason) && !version.settings.constraint && version.tokens.length;
      if (canGoOn) tools.push(tool("Go on", "Go on where the answer was cut", () => this.#generate(turn, () => answer.goOn())));
    }
    // Browsers grant a clipboard to pages of this machine, and to those that come over TLS.
    if (navigator.clipboard) tools.push(tool("Copy", "Copy the answer's text", () => navigator.clipboard.writeText(answer.text.text)));
    return tools;
  }
}
