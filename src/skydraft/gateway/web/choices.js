// What may be chosen here, as switches. Only what the gateway allows is offered.

import { make } from "./dom.js";
import { CHOICES } from "./words.js";

export class Choices {
  constructor(form, offered) {
    this.form = form;
    this.offered = offered;
    this.fields = new Map();
    for (const [name, values] of Object.entries(offered.choices)) if (values.length > 1) this.addRadios(name, values);
    if (offered.can_chat) this.addLength(offered.max_tokens);
    this.addDetails();
    form.addEventListener("change", () => this.update());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.update();
  }

  addRadios(name, values) {
    const known = CHOICES[name] ?? { title: name, values: {} };
    const order = Object.keys(known.values);
    const inOrder = order.length ? [...values].sort((a, b) => order.indexOf(a) - order.indexOf(b)) : values.map(Number).sort((a, b) => a - b);
    const note = make("p", { class: "note", id: `note-${name}` });
    const radios = inOrder.map((value) =>
      make("label", {},
        make("input", { type: "radio", name, value, checked: String(value) === String(values[0]), "aria-describedby": `note-${name}` }),
        make("span", {}, known.values[value]?.[0] ?? `${value} ms`)));
    const fieldset = make("fieldset", { class: "radios" }, make("legend", {}, known.title), make("div", { class: "segments" }, ...radios), note);
    this.fields.set(name, { fieldset, note, known });
    this.form.append(fieldset);
  }

  addLength(maxTokens) {
    const input = make("input", { type: "number", name: "max_tokens", min: 1, max: 4096, step: 1, value: maxTokens, id: "max-tokens", inputmode: "numeric" });
    this.form.append(make("p", { class: "line" }, make("label", { for: "max-tokens" }, "Tokens at most"), input));
  }

  addDetails() {
    this.form.append(make("label", { class: "line check" }, make("input", { type: "checkbox", name: "details", checked: true }), make("span", {}, "Ask the cloud for ranks and probabilities")));
  }

  value(name) {
    return this.form.elements[name]?.value;
  }

  update() {
    for (const [name, { note, known }] of this.fields) note.textContent = known.values[this.value(name)]?.[1] ?? "Added to the way to the cloud and back.";
    const share = this.value("share") ?? this.offered.choices.share[0];
    const mode = this.value("mode") ?? this.offered.choices.mode[0];
    const isAlone = share === "none" || mode === "edge";
    const evidence = this.fields.get("evidence");
    if (evidence) evidence.fieldset.hidden = !this.offered.can_hear || share !== "features" || isAlone;
    const objective = this.fields.get("objective");
    if (objective) objective.fieldset.hidden = isAlone;
  }

  /** Values of X-Skydraft headers: what differs from the configured ones. */
  get chosen() {
    const chosen = { trace: "1" };
    for (const [name, { fieldset }] of this.fields) {
      if (!fieldset.hidden && this.value(name) !== String(this.offered.choices[name][0])) chosen[name] = this.value(name);
    }
    if (this.value("share") === "none") Object.assign(chosen, { mode: "edge" });
    if (this.form.elements.details.checked) chosen.top_logprobs = String(this.numRanks);
    return chosen;
  }

  get numRanks() {
    return 5;
  }

  get maxTokens() {
    return Number(this.value("max_tokens")) || this.offered.max_tokens;
  }
}
