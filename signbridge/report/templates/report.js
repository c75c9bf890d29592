"use strict";
(() => {
  const tip = document.getElementById("tip");
  const words = document.getElementById("words");
  const thumb = thumbnail("thumb", "");
  tip.prepend(thumb);

  // A spot is [x, y, width, height, text, thumbnail] in ten-thousandths of the picture.
  function find(spots, x, y, ratio) {
    let best = null, nearest = 180 * 180;
    for (const spot of spots) {
      if (spot[2] || spot[3]) {
        if (x >= spot[0] && x < spot[0] + spot[2] && y >= spot[1] && y < spot[1] + spot[3]) return spot;
      } else {
        const dx = x - spot[0], dy = (y - spot[1]) * ratio;
        const d = dx * dx + dy * dy;
        if (d < nearest) { nearest = d; best = spot; }
      }
    }
    return best;
  }

  function show(spot, px, py) {
    words.textContent = spot[4];
    thumb.hidden = !(spot[5] in pictures);
    if (!thumb.hidden) thumb.src = pictures[spot[5]];
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(px + 14, window.innerWidth - box.width - 6);
    const top = py + 16 + box.height > window.innerHeight ? py - box.height - 12 : py + 16;
    tip.style.transform = `translate(${Math.max(6, left)}px, ${Math.max(6, top)}px)`;
  }

  for (const picture of document.querySelectorAll(".picture")) {
    const spots = JSON.parse(picture.dataset.spots);
    const at = (event) => {
      const box = picture.getBoundingClientRect();
      const spot = find(
        spots,
        10000 * (event.clientX - box.left) / box.width,
        10000 * (event.clientY - box.top) / box.height,
        box.height / box.width,
      );
      if (spot) show(spot, event.clientX, event.clientY); else tip.hidden = true;
    };
    picture.addEventListener("pointermove", at);
    picture.addEventListener("pointerdown", at);
    picture.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
