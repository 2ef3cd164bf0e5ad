"use strict";
(function () {
  const root = document.documentElement;
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");

  function stored() {
    try { return localStorage.getItem("retention-theme"); } catch (error) { return null; }
  }

  function show(theme) {
    if (theme === "system") { root.removeAttribute("data-theme"); } else { root.setAttribute("data-theme", theme); }
    document.getElementById("theme-name").textContent = theme;
  }

  let theme = themes.includes(stored()) ? stored() : "system";
  show(theme);
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    show(theme);
    try { localStorage.setItem("retention-theme", theme); } catch (error) { /* a page without storage forgets the choice */ }
  });

  document.querySelectorAll(".tools").forEach((tools) => { tools.hidden = false; });
  document.querySelectorAll("[data-details]").forEach((tool) => {
    tool.addEventListener("click", () => {
      tool.closest("section").querySelectorAll(":scope > details").forEach((part) => {
        part.open = tool.dataset.details === "open";
      });
    });
  });

  function openTarget() {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") { target.open = true; }
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = Array.from(document.querySelectorAll("section > details:not([open])"));
    closed.forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => { closed.forEach((part) => { part.open = false; }); });
})();
