// The slider of the page History: tells the moment while it is drawn, and goes there when it is let go. With keys, each of
// which is a second, it goes there by Enter or by its button.
"use strict";

{
  const slide = document.getElementById("past-slide"), told = document.getElementById("past-told");
  let isDrawn = false;
  slide?.addEventListener("pointerdown", () => { isDrawn = true; });
  slide?.addEventListener("keydown", () => { isDrawn = false; });
  slide?.addEventListener("input", () => { told.textContent = moment(slide.value); });
  slide?.addEventListener("change", () => { if (isDrawn) slide.form.requestSubmit(); });
}
