// Links that open #dialog are pages first; here their fragment becomes a modal dialog and focus returns to the opener.
(() => {
  const dialog = () => document.getElementById("dialog");
  let opener = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('[hx-target="#dialog"]');
    if (link) opener = link;
    if (event.target.closest?.("[data-close]") && dialog()?.open) { event.preventDefault(); dialog().close(); }
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    const box = dialog();
    if (!box || event.detail.target !== box) return;
    if (!box.innerHTML.trim()) box.close();
    else if (!box.open) box.showModal();
  });
  document.addEventListener("close", (event) => {
    if (event.target !== dialog()) return;
    event.target.replaceChildren();
    (document.getElementById(opener?.id) ?? opener)?.focus();
    opener = null;
  }, true);
})();
