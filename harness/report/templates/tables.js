/* Tables with data-view: sorted by their headings, filtered by the controls beside them, both kept in the address.
   Without this script every row is on the page, in the order in which it was written. */
(function () {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const count = (n) => n.toLocaleString("en");
  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const trimmed = (text) => text.replace(/\s+/g, " ").trim();

  function make(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  /* The number that a text begins with, as the report prints numbers, or null: what is undefined or not compared stands last. */
  function numberIn(text) {
    const found = /^\s*[<>]?\s*([-+]?\d+(\.\d+)?)/.exec(text.replace(/\u2212/g, "-").replace(/,/g, ""));
    return found ? Number(found[1]) : null;
  }

  class TableView {
    constructor(table) {
      this.table = table;
      this.name = table.dataset.view;
      this.grouped = table.hasAttribute("data-groups");
      this.body = table.tBodies[0];
      this.units = Array.from(this.grouped ? table.tBodies : this.body.rows);
      this.page = Number(table.dataset.page) || this.units.length;
      this.limit = this.page;
      this.sort = null;
      this.sortKeys = new Map();
      this.texts = null;
      const part = (selector) => document.querySelector(selector.replace("*", this.name));
      this.status = part("[data-status='*']");
      this.more = part("[data-more='*']");
      this.filters = this.prepareFilters(part("[data-for='*']"));
      this.heads = Array.from(table.querySelectorAll("th[data-sort]"), (head) => this.prepareHead(head));
      this.status.hidden = false;
      if (this.more) {
        this.more.querySelector("[data-step]").addEventListener("click", () => this.showMore(this.page));
        this.more.querySelector("[data-all]").addEventListener("click", () => this.showMore(this.units.length));
      }
    }

    /* ---- filters: each is {name, control, values}; values holds what each row has, found once */

    prepareFilters(box) {
      if (!box) { return []; }
      box.hidden = false;
      box.querySelector("[data-reset]").addEventListener("click", () => { this.reset(); this.update(true); });
      return Array.from(box.querySelectorAll("[data-filter]"), (control) => {
        const filter = { name: control.dataset.filter, control: control, values: null };
        if (control.dataset.filter !== "q") { filter.values = this.units.map((unit) => this.valueOf(unit, control)); }
        let timer = 0;
        control.addEventListener(control.type === "search" ? "input" : "change", () => {
          clearTimeout(timer);
          timer = setTimeout(() => { this.limit = this.page; this.update(true); }, control.type === "search" ? 80 : 0);
        });
        return filter;
      });
    }

    valueOf(unit, control) {
      const found = unit.matches(control.dataset.pick) ? unit : unit.querySelector(control.dataset.pick);
      if (control.type === "checkbox") { return found ? "1" : ""; }
      return found ? trimmed(found.textContent) : "";
    }

    textOf(i) {
      if (!this.texts) {
        const first = this.grouped ? (unit) => unit.rows[0] : (unit) => unit;
        this.texts = this.units.map((unit) => fold(first(unit).textContent));
      }
      return this.texts[i];
    }

    wanted(filter) {
      if (filter.control.type === "checkbox") { return filter.control.checked ? "1" : ""; }
      return filter.name === "q" ? filter.control.value.trim() : filter.control.value;
    }

    matching(except) {
      const tests = this.filters.filter((filter) => filter !== except && this.wanted(filter) !== "").map((filter) => {
        const wanted = this.wanted(filter);
        if (filter.name !== "q") { return (i) => filter.values[i] === wanted; }
        const words = fold(wanted).split(/\s+/);
        return (i) => words.every((word) => this.textOf(i).includes(word));
      });
      return this.units.map((unit, i) => i).filter((i) => tests.every((test) => test(i)));
    }

    /* Each list offers what the other filters leave, with how many rows that is. */
    offer() {
      this.filters.filter((filter) => filter.control.tagName === "SELECT").forEach((filter) => {
        const wanted = this.wanted(filter);
        const tally = new Map();
        filter.values.forEach((value) => { if (value !== "" && !tally.has(value)) { tally.set(value, 0); } });
        this.matching(filter).forEach((i) => {
          const value = filter.values[i];
          if (value !== "") { tally.set(value, tally.get(value) + 1); }
        });
        let names = Array.from(tally.keys()).filter((value) => tally.get(value) > 0 || value === wanted);
        if (filter.control.hasAttribute("data-alphabetical")) { names = names.sort(collator.compare); }
        const options = names.map((value) => make("option", { value: value }, `${value} (${count(tally.get(value))})`));
        const before = Array.from(filter.control.options).slice(1).map((option) => option.text).join("\n");
        if (before !== options.map((option) => option.text).join("\n")) {
          filter.control.replaceChildren(filter.control.options[0], ...options);
          filter.control.value = wanted;
        }
        filter.control.closest("label").hidden = tally.size < 2;
      });
    }

    /* ---- sorting */

    prepareHead(head) {
      const label = trimmed(head.textContent);
      const button = make("button", { type: "button", className: "sort" });
      button.append(...head.childNodes, make("span", { className: "arrow" }));
      button.querySelector(".arrow").setAttribute("aria-hidden", "true");
      head.append(button);
      const made = { head: head, column: head.cellIndex, label: label, slug: fold(label).replace(/[^a-z0-9]+/g, "-") };
      button.addEventListener("click", () => { this.turn(made); this.update(true); });
      return made;
    }

    /* Its natural direction first, then the other, then the order of the page again. */
    turn(chosen) {
      const downFirst = chosen.head.hasAttribute("data-down");
      if (!this.sort || this.sort.by !== chosen) { this.sort = { by: chosen, down: downFirst }; }
      else if (this.sort.down === downFirst) { this.sort.down = !downFirst; }
      else { this.sort = null; }
      this.limit = this.page;
    }

    keysOf(chosen) {
      if (!this.sortKeys.has(chosen)) {
        const isNumber = chosen.head.dataset.sort === "number";
        this.sortKeys.set(chosen, this.units.map((unit) => {
          const cell = (this.grouped ? unit.rows[0] : unit).cells[chosen.column];
          if (!cell) { return null; }
          if (cell.dataset.v) { return Number(cell.dataset.v); }
          const shown = cell.querySelector(chosen.head.dataset.key || ".value") || cell;
          return isNumber ? numberIn(shown.textContent) : trimmed(shown.textContent);
        }));
      }
      return this.sortKeys.get(chosen);
    }

    sorted(found) {
      if (!this.sort) { return found; }
      const keys = this.keysOf(this.sort.by);
      const sign = this.sort.down ? -1 : 1;
      return found.slice().sort((i, j) => {
        const a = keys[i], b = keys[j];
        if (a === null || b === null) { return (a === null) - (b === null) || i - j; }
        const order = typeof a === "number" ? a - b : collator.compare(a, b);
        return sign * order || i - j;
      });
    }

    /* ---- showing */

    update(byReader) {
      const found = this.sorted(this.matching(null));
      const shown = found.slice(0, this.limit).map((i) => this.units[i]);
      if (this.grouped) {
        const rest = document.createRange(); /* all groups at once, and the headings stay in place with the focus on them */
        rest.setStartAfter(this.table.tHead);
        rest.setEndAfter(this.table.lastChild);
        rest.deleteContents();
        this.table.append(...shown);
      } else {
        this.body.replaceChildren(...shown);
      }
      this.heads.forEach((made) => {
        const active = this.sort && this.sort.by === made;
        if (active) { made.head.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending"); }
        else { made.head.removeAttribute("aria-sort"); }
      });
      this.offer();
      this.say(shown.length, found.length);
      if (byReader) { remember(this); }
    }

    say(nShown, nFound) {
      const noun = (n) => `${count(n)} ${n === 1 ? this.table.dataset.one : this.table.dataset.many}`;
      const all = this.units.length;
      let text;
      if (nFound === 0) { text = `None of ${noun(all)} matches.`; }
      else if (nFound === all) { text = nShown === all ? `All ${noun(all)}` : `The first ${count(nShown)} of ${noun(all)}`; }
      else { text = `${nShown < nFound ? `The first ${count(nShown)} of ` : ""}${count(nFound)} that match, of ${noun(all)}`; }
      if (this.sort && nFound > 1) {
        const isNumber = this.sort.by.head.dataset.sort === "number";
        const way = isNumber ? (this.sort.down ? "highest first" : "lowest first") : (this.sort.down ? "Z to A" : "A to Z");
        text += `, by ${this.sort.by.label.toLowerCase()}, ${way}`;
      }
      if (this.status.textContent !== text) { this.status.textContent = text; }
      if (this.more) {
        this.more.hidden = nShown >= nFound;
        const step = Math.min(this.page, nFound - nShown);
        this.more.querySelector("[data-step]").textContent = `Show ${count(step)} more`;
        this.more.querySelector("[data-all]").textContent = `Show all ${count(nFound)}`;
      }
    }

    showMore(n) {
      const held = document.activeElement;
      this.limit += n;
      this.update(false);
      if (this.more.hidden && this.more.contains(held)) { this.table.closest(".scroll").focus({ preventScroll: true }); }
    }

    /* ---- state: as it stands in the address */

    reset() {
      this.filters.forEach((filter) => { filter.control.value = ""; filter.control.checked = false; });
      this.sort = null;
      this.limit = this.page;
    }

    state() {
      const pairs = this.filters.map((filter) => [filter.name, this.wanted(filter)]).filter((pair) => pair[1] !== "");
      if (this.sort) { pairs.push(["sort", (this.sort.down ? "-" : "") + this.sort.by.slug]); }
      return pairs.map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
    }

    restore(state) {
      this.reset();
      new URLSearchParams(state).forEach((value, name) => {
        if (name === "sort") {
          const by = this.heads.find((made) => made.slug === value.replace(/^-/, ""));
          if (by) { this.sort = { by: by, down: value.startsWith("-") }; }
        }
        const filter = this.filters.find((made) => made.name === name);
        if (filter) { this.want(filter, value); }
      });
      this.update(false);
    }

    want(filter, value) {
      if (filter.control.type === "checkbox") { filter.control.checked = value !== ""; return; }
      if (filter.control.tagName === "SELECT" && !Array.from(filter.control.options).some((option) => option.value === value)) {
        filter.control.append(make("option", { value: value }, value));
      }
      filter.control.value = value;
    }

    /* A link to one row shows it among those that share what the table's data-pin names. */
    pin(i) {
      this.reset();
      const pinned = (this.table.dataset.pin || "").split(" ");
      this.filters.filter((filter) => pinned.includes(filter.name)).forEach((filter) => this.want(filter, filter.values[i]));
      this.update(true);
      this.scrollIntoView();
      this.table.closest(".scroll").focus({ preventScroll: true });
    }

    scrollIntoView() {
      (document.querySelector(`[data-for='${this.name}']`) || document.getElementById(this.name)).scrollIntoView();
    }
  }

  const views = Array.from(document.querySelectorAll("table[data-view]"), (table) => new TableView(table));
  const targets = new Map();
  views.forEach((view) => view.units.forEach((unit, i) => { if (unit.id) { targets.set(unit.id, [view, i]); } }));

  function remember(touched) {
    const changed = [touched, ...views.filter((view) => view !== touched)].filter((view) => view.state() !== "");
    const address = changed.map((view) => `${view.name}?${view.state()}`).join(";") || touched.name;
    try { history.replaceState(null, "", `#${address}`); } catch (error) { /* a sandboxed page keeps no address */ }
  }

  function recall() {
    const address = location.hash.slice(1);
    const target = targets.get(address);
    if (target) { target[0].pin(target[1]); return; }
    if (!address.includes("?")) { return; }
    const states = new Map(address.split(";").map((part) => part.split(/\?(.*)/s).slice(0, 2)));
    views.forEach((view) => view.restore(states.get(view.name) || ""));
    const first = views.find((view) => view.name === address.split("?")[0]);
    if (first) { first.scrollIntoView(); }
  }

  views.forEach((view) => view.update(false));
  window.addEventListener("hashchange", recall);
  recall();
})();
