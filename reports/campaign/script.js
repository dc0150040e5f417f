
"use strict";
{
  const PAUSE = 3000;
  const lost = document.getElementById("lost");
  const again = async () => {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = document.querySelector("main");
      // Whoever reads it with the keyboard keeps the place.
      if (!main.contains(document.activeElement)) main.replaceWith(next.querySelector("main"));
      document.title = next.title;
      lost.textContent = "";
    } catch (error) {
      lost.textContent = `This is old: vmgate serve does not answer (${error.message}).`;
    }
    setTimeout(again, PAUSE);
  };
  setTimeout(again, PAUSE);
}
