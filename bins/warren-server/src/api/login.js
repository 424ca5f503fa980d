"use strict";
const said = document.getElementById("said");
const form = document.getElementById("form");
const field = (name) => document.getElementById(name);
field("code").value = decodeURIComponent(location.hash.slice(1));
field(field("code").value ? "username" : "code").focus();
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const answer = await fetch("/api/v1/login/device/approve", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        user_code: field("code").value,
        username: field("username").value,
        password: field("password").value,
      }),
    });
    if (!answer.ok) {
      const problem = await answer.json();
      said.textContent = [problem.detail, problem.hint].filter(Boolean).join(". ");
      field("password").value = "";
      field("password").focus();
      return;
    }
    form.hidden = true;
    history.replaceState(null, "", "/login");
    said.textContent = "Done: the program is logged in. You can close this page.";
  } catch (error) {
    said.textContent = `The server does not answer: ${error.message}`;
  }
});
