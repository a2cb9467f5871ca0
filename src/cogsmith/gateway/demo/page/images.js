// Images on their way to a model that reads some: chosen, dropped or pasted into a form, shown small, and taken out.
import { announce, find, make, showError } from "./dom.js";

const COUNTS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A file that cannot be sent, with the reason. */
class Unfit extends Error {}

export class Tray extends EventTarget {
  /** `view` is a section with a form, and an empty place for the images in it. Events: `change`. */
  constructor(view) {
    super();
    this.rules = null;
    this.pictures = [];
    this.place = find(".images", view);
    this.place.append(find("#tray").content.cloneNode(true));
    this.list = find("ol", this.place);
    this.error = find(".error", this.place);
    this.#listen(view);
  }

  /** `rules` is what the server says of images; null for a model that reads none. */
  setModel(rules) {
    this.rules = rules;
    this.place.hidden = !rules;
    this.clear();
    if (rules) find("input", this.place).accept = rules.kinds.join(",");
  }

  /** What is in it, as data URIs, in order. */
  get uris() {
    return this.pictures.map(({ uri }) => uri);
  }

  clear() {
    this.put([]);
    showError(this.error, null);
  }

  /** Hold these pictures and no others. */
  put(pictures) {
    this.pictures = [...pictures];
    this.list.replaceChildren(...this.pictures.map((picture) => this.#item(picture)));
    this.list.hidden = !this.pictures.length;
    this.dispatchEvent(new Event("change"));
  }

  /** Add files behind those that are there: all that can be sent. Says what is wrong with the others. */
  async add(files) {
    const opened = await Promise.allSettled([...files].map((file) => open(file, this.rules)));
    if (!this.rules) return; // another model was chosen meanwhile
    const faults = opened.filter(({ reason }) => reason).map(({ reason }) => reason.message);
    const fit = [...this.pictures];
    for (const { value: picture } of opened.filter(({ status }) => status === "fulfilled")) {
      const fault = this.tooMuch([...fit, picture]);
      if (fault) faults.push(`${picture.name}: ${fault}`);
      else fit.push(picture);
    }
    this.put(fit);
    showError(this.error, faults.join("\n"));
    announce([`${fit.length} images`, ...faults].join(". "));
  }

  /** Why these pictures cannot be sent together; null where they can. */
  tooMuch(pictures) {
    const { most, bytes } = this.rules;
    if (pictures.length > most) return `the model takes ${most} images at most.`;
    return sizeOf(pictures) > bytes ? `together the images are larger than ${megabytes(bytes)}.` : null;
  }

  #item(picture) {
    const remove = make("button", { type: "button", className: "remove", title: "Remove", "aria-label": `Remove ${picture.name}` }, "×");
    remove.addEventListener("click", () => {
      this.put(this.pictures.filter((one) => one !== picture));
      find(".attach", this.place).focus();
    });
    return make("li", {}, thumbnail(picture), remove);
  }

  #listen(view) {
    const input = find("input", this.place);
    find(".attach", this.place).addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      const files = [...input.files];
      input.value = ""; // so that the same file can be chosen again
      await this.add(files);
    });
    find("form", view).addEventListener("paste", (event) => {
      const { files } = event.clipboardData;
      if (!this.rules || !files.length) return;
      event.preventDefault();
      this.add(files);
    });
    const brings = (event) => this.rules && event.dataTransfer.types.includes("Files");
    view.addEventListener("dragover", (event) => {
      if (!brings(event)) return;
      event.preventDefault();
      view.classList.add("dropping");
    });
    view.addEventListener("dragleave", (event) => {
      if (!view.contains(event.relatedTarget)) view.classList.remove("dropping");
    });
    view.addEventListener("drop", (event) => {
      view.classList.remove("dropping");
      if (!brings(event)) return;
      event.preventDefault();
      this.add(event.dataTransfer.files);
    });
  }
}

/** A picture, small. */
export const thumbnail = ({ uri, name, size }) => make("img", { src: uri, alt: name, title: `${name}, ${size}` });

/** How many bytes pictures take in a request. */
const sizeOf = (pictures) => pictures.reduce((sum, { uri }) => sum + uri.length, 0);

const megabytes = (bytes) => `${COUNTS.format(bytes / 2 ** 20)} MiB`;

/** A file as a picture. Throws Unfit for what the model could not read. */
async function open(file, { kinds, pixels, bytes }) {
  const refuse = (why) => { throw new Unfit(`${file.name}: ${why}`); };
  if (!kinds.includes(file.type)) refuse(`this is none of ${kinds.map((kind) => kind.split("/")[1].toUpperCase()).join(", ")}.`);
  if (file.size * 4 / 3 > bytes) refuse(`it has ${megabytes(file.size)}, and ${megabytes(bytes * 3 / 4)} can be sent.`);
  const bitmap = await createImageBitmap(file).catch(() => refuse("this is no image that can be read."));
  const { width, height } = bitmap;
  bitmap.close();
  if (width * height > pixels) refuse(`it has ${width} × ${height} pixels, more than ${pixels}.`);
  return { name: file.name, size: `${width} × ${height}`, uri: await read(file) };
}

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Unfit(`${file.name}: it cannot be read.`)));
    reader.readAsDataURL(file);
  });
}
