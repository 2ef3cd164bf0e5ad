"use strict";
(function () {
  var root = document.documentElement;
  var themes = ["system", "light", "dark"];
  var button = document.getElementById("theme");

  function stored() {
    try { return localStorage.getItem("retention-theme"); } catch (error) { return null; }
  }

  function show(theme) {
    if (theme === "system") { root.removeAttribute("data-theme"); } else { root.setAttribute("data-theme", theme); }
    document.getElementById("theme-name").textContent = theme;
  }

  var theme = themes.indexOf(stored()) < 0 ? "system" : stored();
  show(theme);
  button.hidden = false;
  button.addEventListener("click", function () {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    show(theme);
    try { localStorage.setItem("retention-theme", theme); } catch (error) { /* a page without storage forgets the choice */ }
  });

  function each(selector, act) { Array.prototype.forEach.call(document.querySelectorAll(selector), act); }

  each(".tools", function (tools) { tools.hidden = false; });
  each("[data-details]", function (tool) {
    tool.addEventListener("click", function () {
      var section = tool.closest("section");
      Array.prototype.forEach.call(section.querySelectorAll("details.flips"), function (part) {
        part.open = tool.getAttribute("data-details") === "open";
      });
    });
  });

  function openTarget() {
    var target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.open = true; }
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();

  var closed = [];
  window.addEventListener("beforeprint", function () {
    closed = [];
    each("details:not([open])", function (part) { closed.push(part); part.open = true; });
  });
  window.addEventListener("afterprint", function () { closed.forEach(function (part) { part.open = false; }); });
})();
