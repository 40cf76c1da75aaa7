// "/" puts the cursor into the page's search. Single keys of a list ([data-key="a"] inside a row) act on the row that has focus.
(() => {
  const typing = (node) => node?.closest?.("input, textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) { event.preventDefault(); search.focus(); }
      return;
    }
    if (document.documentElement.dataset.keys === "off") return;
    const rows = [...document.querySelectorAll("[data-key-row]")];
    if (!rows.length) return;
    const at = rows.indexOf(event.target.closest("[data-key-row]"));
    if (event.key === "j" || event.key === "k") {
      const row = rows[Math.min(rows.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))];
      row.tabIndex = -1;
      row.focus();
      row.scrollIntoView({ block: "nearest" });
    } else if (at >= 0) {
      rows[at].querySelector(`[data-key="${CSS.escape(event.key)}"]`)?.click();
    }
  });
})();
