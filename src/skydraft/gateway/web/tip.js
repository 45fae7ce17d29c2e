// One tip for the whole page: what is known of the token or the round under the pointer, the finger or the focus.

import { $, make, say } from "./dom.js";

const GAP = 8;
let shownFor = null;
let shownAt = null;

const placeOf = (element) => element.getClientRects()[0] ?? element.getBoundingClientRect();
const hasMoved = () => shownFor && Math.hypot(placeOf(shownFor).left - shownAt.left, placeOf(shownFor).top - shownAt.top) > 2;

/** Show lines at an element. */
export function showTip(element, origin, heading, lines) {
  const tip = $("tip");
  tip.replaceChildren(
    make("p", { class: `tip-head ${origin ?? ""}` }, heading),
    ...lines.map((line) => make("p", {}, line)),
  );
  tip.hidden = false;
  shownFor?.removeAttribute("aria-describedby");
  shownFor = element;
  element.setAttribute("aria-describedby", "tip");
  const at = placeOf(element);
  shownAt = at;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(GAP, at.left), document.documentElement.clientWidth - width - GAP);
  const above = at.top - height - GAP;
  tip.style.left = `${Math.round(left)}px`;
  tip.style.top = `${Math.round(above > GAP ? above : at.bottom + GAP)}px`;
}

export function hideTip() {
  $("tip").hidden = true;
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
}

document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
document.addEventListener("scroll", () => hasMoved() && hideTip(), { passive: true, capture: true });
document.addEventListener("pointerdown", (event) => {
  if (shownFor && !event.target.closest?.("[data-tells]")) hideTip();
});

/** Let the children of an element that have `data-tells` be told about: by pointer, touch, and with the arrow keys.
 * The element is one stop of the Tab key. tell(child): shows its tip; leave(): nothing is told about any more. */
export function tellOn(element, tell, leave) {
  let current = null;
  const at = (child) => {
    current = child;
    tell(child);
  };
  const away = () => {
    current = null;
    hideTip();
    leave();
  };
  element.addEventListener("pointerover", (event) => {
    const child = event.target.closest("[data-tells]");
    if (child) at(child);
    else if (event.pointerType === "mouse" && current) away();
  });
  element.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && away());
  element.addEventListener("focusout", away);
  element.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    const children = [...element.querySelectorAll("[data-tells]")];
    if (!children.length) return;
    event.preventDefault();
    const from = current ? children.indexOf(current) : steps[event.key] > 0 ? -1 : children.length;
    const next = children[Math.min(children.length - 1, Math.max(0, from + steps[event.key]))];
    current = next; // now: another key may come before the frame
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
    requestAnimationFrame(() => {
      if (current !== next) return;
      at(next);
      say(`${next.textContent} ${$("tip").innerText}`); // the focus stays where it is: nothing else would be read out
    });
  });
}
