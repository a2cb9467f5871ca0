// Small helpers over the document. All text goes in as text, never as HTML: models write what they like.

/** Make an element; `properties` are set on it, those with a dash or `role` as attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export const find = (selector, root = document) => root.querySelector(selector);

/** Say something to a screen reader. */
export function announce(text) {
  find("#announcer").textContent = text;
}

/** Show an error where it belongs, or take it away. */
export function showError(place, text) {
  place.textContent = text ?? "";
  place.hidden = !text;
}

/** Whether an element is scrolled to its end, or nearly. */
export const isAtEnd = (element) => element.scrollHeight - element.scrollTop - element.clientHeight < 60;

export const percent = (share) => {
  const hundredths = share * 100;
  if (hundredths >= 99.95) return "100 %";
  if (hundredths < 0.01) return hundredths === 0 ? "0 %" : "< 0.01 %";
  return `${hundredths.toFixed(hundredths < 1 ? 2 : 1)} %`;
};
