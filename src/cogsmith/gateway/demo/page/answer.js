// One answer of the model: its tokens, the versions that branching made of it, and its way here.
import { postForLines } from "./api.js";
import { announce } from "./dom.js";
import { TokenText } from "./token_text.js";

const ENDS = {
  stop: "ended by itself",
  stop_sequence: "ended by itself",
  length: "cut at the greatest length",
  cancelled: "stopped",
  deadline: "stopped: out of time",
};

export class Answer {
  /** `model` is a name, `asked` the prompt as the server takes it. `events` hears `change` and `tokens`. */
  constructor(model, asked, events) {
    this.model = model;
    this.asked = asked;
    this.events = events;
    this.text = new TokenText("The answer's tokens: the arrow keys move among them");
    this.versions = [];
    this.current = -1;
    this.aborter = null;
  }

  get version() {
    return this.versions[this.current];
  }

  get isRunning() {
    return this.aborter !== null;
  }

  /** Whether it can be changed token by token, and if not, why. */
  get whyFixed() {
    if (this.isRunning) return "Wait for the end, or stop it, to go on from here another way.";
    if (this.version?.settings.constraint) return "Under a constraint an answer cannot be taken up in its middle.";
    return null;
  }

  /** Make a new version, behind `begun` tokens of the present one. Returns the server's error, or null. */
  async generate(settings, begun = []) {
    this.versions.splice(this.current + 1, 0, { tokens: [...begun], settings, end: null, error: null, facts: {} });
    this.current += 1;
    this.text.replace(begun);
    return this.#run(begun.map(({ id }) => id), settings.max_tokens - begun.length);
  }

  /** Go on where the present version was cut. */
  async goOn() {
    this.version.end = null;
    return this.#run(this.version.tokens.map(({ id }) => id), this.version.settings.max_tokens);
  }

  /** Show another version. */
  turnTo(index) {
    this.current = index;
    this.text.replace(this.version.tokens);
    this.events.dispatchEvent(new Event("change"));
  }

  stop() {
    this.aborter?.abort();
  }

  async #run(begun, room) {
    const version = this.version;
    const body = { ...this.asked, ...version.settings, begun, max_tokens: Math.max(1, room) };
    this.aborter = new AbortController();
    this.events.dispatchEvent(new Event("change"));
    try {
      for await (const line of postForLines(`models/${encodeURIComponent(this.model)}/generation`, body, this.aborter.signal)) {
        this.#take(line, version);
      }
      if (!version.end && !version.error) version.error = "The answer broke off.";
    } catch (error) {
      if (error.name === "AbortError") version.end = { reason: "cancelled" };
      else version.error = error.message;
    }
    this.aborter = null;
    this.events.dispatchEvent(new Event("change"));
    announce(version.error ?? `Answer: ${this.text.text}`);
    return version.error;
  }

  #take(line, version) {
    if (line.begun) this.#settle(line, version);
    if (line.tokens) {
      const isForced = ({ logprob, top }) => logprob === 0 && top.length <= 1 && version.settings.constraint !== null;
      const tokens = line.tokens.map((token) => ({ ...token, forced: isForced(token) }));
      version.tokens.push(...tokens);
      this.text.append(tokens);
      this.events.dispatchEvent(new Event("tokens"));
    }
    if (line.end) version.end = line.end;
    if (line.error) version.error = line.fix ? `${line.error} (${line.fix})` : line.error;
  }

  /** The server says how what had begun reads, now that it is one text. */
  #settle({ begun, prompt_tokens: count }, version) {
    version.facts.prompt = count;
    const known = version.tokens;
    if (begun.some((text, index) => known[index].text !== text)) {
      version.tokens = known.map((token, index) => ({ ...token, text: begun[index] }));
      this.text.replace(version.tokens);
    }
  }

  /** How it came to its end, in words. */
  get ending() {
    const { end, facts, tokens } = this.version;
    if (!end) return "";
    const said = [ENDS[end.reason] ?? end.reason];
    if (facts.prompt) said.push(`prompt of ${facts.prompt} tokens`);
    if (end.timing?.total_ms && tokens.length) {
      said.push(`first token after ${Math.round(end.timing.first_token_ms)} ms`);
    }
    return said.join(" · ");
  }
}
