// Focus follows what happened: an error summary, the first row after "Show more", or where a response says. Busy parts say so.
(() => {
  let more = false;
  const claim = (root) => root.querySelector?.("[data-autofocus]")?.focus();
  document.addEventListener("DOMContentLoaded", () => claim(document));
  document.addEventListener("htmx:beforeRequest", (event) => {
    event.detail.target?.setAttribute("aria-busy", "true");
    more = event.detail.elt.matches?.("[data-more]") ?? false;
  });
  document.addEventListener("htmx:afterRequest", (event) => event.detail.target?.removeAttribute("aria-busy"));
  document.addEventListener("htmx:afterSettle", (event) => {
    const part = event.detail.elt?.isConnected ? event.detail.elt : document;
    if (part.querySelector?.(".error-summary") && !document.title.startsWith("Error: ")) document.title = "Error: " + document.title;
    claim(part);
    if (more) { more = false; part.querySelector("a[href], button")?.focus(); }
  });
})();
