// A text's tokens, its chart and the card of alternatives, each following the others.
import * as card from "./card.js";

/** Link them. `alternatives(index)` gives what the card needs: {choose} or {why}; called when a card is shown. */
export function link(text, chart, alternatives) {
  const clear = () => {
    text.activate(-1);
    if (chart.tokens === text.tokens) chart.mark(-1);
  };
  const show = ({ index, pinned = false, byKey = false }) => {
    const further = alternatives(index);
    const span = text.activate(index);
    chart.mark(index);
    card.show(span, text.tokens[index], { ...further, pin: pinned, focus: byKey, onClose: clear });
  };
  text.addEventListener("point", ({ detail }) => show(detail));
  text.addEventListener("leave", () => card.hide());
  chart.addEventListener("point", ({ detail }) => {
    if (chart.tokens !== text.tokens) return;
    text.element.children[detail.index].scrollIntoView({ block: "nearest" });
    show(detail);
  });
  chart.addEventListener("leave", () => card.hide());
}
