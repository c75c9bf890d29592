"use strict";
// The images one by one: filtered, sorted, drawn a page at a time. Text from data is only ever set as text.
(() => {
  const step = 20;

  function line(name, value, right) {
    const made = element("li");
    made.append(element("span", "name", `${name} `), element("strong", "", value));
    if (right !== null) {
      const mark = element("span", right ? "right" : "wrong", right ? " ✓" : " ✗");
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", right ? "right" : "wrong");
      made.append(mark);
    }
    return made;
  }

  function card(spec, image) {
    const made = element("li", "card"), name = (k) => spec.classes[k];
    if (image.row in pictures) {
      const picture = thumbnail("", `an image of ${name(image.label)}`);
      picture.src = pictures[image.row];
      made.append(picture);
    }
    const lines = element("ul");
    lines.append(line("is", name(image.label), null));
    lines.append(line("read as", `${name(image.read)} ${Math.round(100 * image.sure)}\u00a0%`, image.read === image.label));
    if (image.answer !== null) lines.append(line("says", spec.answers[image.answer], image.says));
    if (image.choice !== null) lines.append(line("would say", name(image.choice), image.choice === image.label));
    if (image.group !== null) lines.append(line("by", spec.groups[image.group], null));
    made.append(lines);
    return made;
  }

  for (const picture of document.querySelectorAll(".card img")) sharp(picture);

  for (const box of document.querySelectorAll(".browser")) {
    const spec = JSON.parse(box.querySelector("script").textContent);
    const cards = box.querySelector(".cards"), more = box.querySelector(".more"), status = box.querySelector("[role=status]");
    const chips = [...box.querySelectorAll("[data-kind]")];
    const choice = (name) => box.querySelector(`select[name=${name}]`);
    let shown = [];

    function fill(select, names) {
      if (!select) return;
      for (const [value, text] of Object.entries(names).sort((a, b) => a[1].localeCompare(b[1]))) {
        const made = element("option", "", text);
        made.value = value;
        select.append(made);
      }
    }
    const present = new Set(spec.images.map((image) => String(image.label)));
    fill(choice("class"), Object.fromEntries(Object.entries(spec.classes).filter(([k]) => present.has(k))));
    fill(choice("group"), spec.groups || {});

    function draw() {
      const from = cards.children.length;
      cards.append(...shown.slice(from, from + step).map((image) => card(spec, image)));
      more.hidden = cards.children.length >= shown.length;
      status.textContent = shown.length ? `${cards.children.length} of ${shown.length} shown` : "No image is so.";
    }

    function choose() {
      const kind = chips.find((chip) => chip.getAttribute("aria-pressed") === "true").dataset.kind;
      const label = choice("class").value, group = choice("group") ? choice("group").value : "";
      const up = choice("order").value === "up" ? 1 : -1;
      shown = spec.images
        .filter((image) => (kind === "" || String(image.kind) === kind)
          && (label === "" || String(image.label) === label)
          && (group === "" || String(image.group) === group))
        .sort((a, b) => up * (a.sure - b.sure) || a.row - b.row);
      cards.replaceChildren();
      draw();
    }

    for (const chip of chips) {
      chip.addEventListener("click", () => {
        for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
        choose();
      });
    }
    for (const select of box.querySelectorAll("select")) select.addEventListener("change", choose);
    more.addEventListener("click", () => {
      const from = cards.children.length;
      draw();
      cards.children[from].tabIndex = -1;
      cards.children[from].focus();
    });
    new IntersectionObserver((entries, observer) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      choose();
    }, { rootMargin: "400px" }).observe(box);
  }
})();
