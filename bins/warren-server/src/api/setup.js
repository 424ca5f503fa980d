"use strict";
const said = document.getElementById("said");
const form = document.getElementById("form");
const token = location.hash.slice(1);
if (!token) {
  said.textContent = "The link that the server printed at its start is needed to set it up.";
  form.hidden = true;
}
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const username = document.getElementById("username").value;
  const password = document.getElementById("password").value;
  try {
    const answer = await fetch("/api/v1/setup", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token, username, password }),
    });
    const document_ = await answer.json();
    if (!answer.ok) {
      said.textContent = [document_.detail, document_.hint].filter(Boolean).join(". ");
      return;
    }
    form.hidden = true;
    history.replaceState(null, "", "/setup");
    said.textContent = `Done. Log in with: warren login ${location.origin} --username ${username}`;
  } catch (error) {
    said.textContent = `The server does not answer: ${error.message}`;
  }
});
