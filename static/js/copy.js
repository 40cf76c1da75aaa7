// [data-copy="element-id"] copies that element's value or text, says so in the live region and on the button.
(() => {
  const say = (text) => { const live = document.getElementById("live"); if (live) live.textContent = text; };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const text = source?.dataset.copyText ?? source?.value ?? source?.textContent ?? "";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      say("Press Ctrl+C to copy.");
      return;
    }
    say("Copied");
    const label = button.querySelector("[data-label]");
    if (!label) return;
    const before = label.textContent;
    label.textContent = "Copied";
    setTimeout(() => { label.textContent = before; }, 2000);
  });
})();
