// A part that could not be loaded keeps its old content and says above it what failed and what that means.
(() => {
  const notice = (target, reference) => {
    target.parentElement?.querySelector(":scope > .request-error")?.remove();
    const box = document.createElement("div");
    box.className = "note bad request-error";
    box.setAttribute("role", "alert");
    box.textContent = "This part could not be loaded. What you see is the last state we have, and nothing was changed by the failed request unless the page says so after a reload. ";
    const again = document.createElement("a");
    again.href = location.href;
    again.textContent = "Reload the page";
    box.append(again);
    if (reference) {
      const code = document.createElement("span");
      code.className = "reference";
      code.textContent = reference;
      box.append(". Reference ", code);
    }
    target.before(box);
  };
  document.addEventListener("htmx:responseError", (event) => notice(event.detail.target, event.detail.xhr.getResponseHeader("X-Request-Id")));
  document.addEventListener("htmx:sendError", (event) => notice(event.detail.target, null));
  document.addEventListener("htmx:afterSwap", (event) => event.detail.target?.parentElement?.querySelector(":scope > .request-error")?.remove());
})();
