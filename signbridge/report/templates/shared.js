"use strict";
// What the page's other scripts use: its small pictures by row, parsed once, and elements with text.
const pictures = JSON.parse(document.getElementById("pictures").textContent);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Few pixels are shown as squares, not blurred.
function sharp(picture) {
  const choose = () => picture.classList.toggle("tiny", picture.naturalWidth < 48);
  picture.addEventListener("load", choose);
  if (picture.complete) choose();
  return picture;
}

function thumbnail(className, alt) {
  const made = element("img", className);
  made.alt = alt;
  return sharp(made);
}
