// The slider of the page History: tells the moment while it is drawn, and goes there when it is let go.
"use strict";

{
  const slide = document.getElementById("past-slide"), told = document.getElementById("past-told");
  if (slide) {
    document.getElementById("past-go").hidden = true;
    slide.addEventListener("input", () => {
      told.textContent = new Date(slide.value * 1000).toLocaleString("sv-SE");
    });
    slide.addEventListener("change", () => slide.form.requestSubmit());
  }
}
