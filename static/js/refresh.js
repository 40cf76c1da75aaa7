// Fires "refresh" on <body> while the page is visible: parts with hx-trigger="refresh from:body" then fetch themselves.
// The interval comes from the part that asked: data-refresh-seconds, 30 by default. [data-pause] stops and resumes it.
(() => {
  let paused = false;
  let waited = 0;
  const interval = () => {
    const asked = [...document.querySelectorAll("[data-refresh-seconds]")].map((part) => Number(part.dataset.refreshSeconds));
    return Math.min(30, ...asked.filter((seconds) => seconds > 0));
  };
  setInterval(() => {
    if (paused || document.visibilityState !== "visible" || !window.htmx) return;
    waited += 1;
    if (waited < interval()) return;
    waited = 0;
    window.htmx.trigger(document.body, "refresh");
  }, 1000);
  const show = () => {
    for (const button of document.querySelectorAll("[data-pause]")) button.setAttribute("aria-pressed", String(paused));
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-pause]")) return;
    paused = !paused;
    waited = 0;
    show();
  });
  document.addEventListener("htmx:afterSettle", show);
})();
