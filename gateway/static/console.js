"use strict";
// Text is only ever set as textContent: names and errors come from other people.
const MESSAGES_MAX = 500;
const REFRESH_MS = 3000;
const element = (id) => document.getElementById(id);
let token = "";
let timer = 0;
let socket = null;

function cell(row, text, className) {
  const made = row.insertCell();
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function watch(executionId) {
  if (socket) socket.close();
  const address = `${location.origin.replace(/^http/, "ws")}/ws/workflows/${executionId}`;
  const opened = new WebSocket(address, ["bearer", token]);
  socket = opened;
  element("detail").hidden = false;
  element("detail-id").textContent = executionId;
  element("detail-status").textContent = "";
  element("messages").replaceChildren();
  opened.onmessage = (event) => {
    const message = JSON.parse(event.data);
    const { task_id: task, agent_id: agent, new_status: status, progress, error_message: error } = message.data;
    if (status) element("detail-status").textContent = status;
    const item = document.createElement("li");
    const parts = [message.timestamp, message.type, task, agent, status, error];
    if (progress !== undefined) parts.push(`${Math.round(progress * 100)} %`);
    item.textContent = parts.filter(Boolean).join("  ");
    const list = element("messages");
    list.append(item);
    while (list.childElementCount > MESSAGES_MAX) list.firstElementChild.remove();
  };
}

function show(page) {
  const body = element("executions").tBodies[0];
  body.replaceChildren();
  for (const execution of page.items) {
    const row = body.insertRow();
    cell(row, new Date(execution.started_at).toLocaleString());
    cell(row, execution.workflow_name);
    cell(row, execution.status, execution.status);
    cell(row, `${execution.tasks_completed} / ${execution.tasks_total}`);
    const button = document.createElement("button");
    button.textContent = execution.execution_id;
    button.addEventListener("click", () => watch(execution.execution_id));
    cell(row, "").append(button);
  }
  element("executions").hidden = false;
  element("notice").textContent = page.items.length ? "" : "No executions yet.";
}

async function refresh() {
  clearTimeout(timer);
  try {
    const answer = await fetch("/api/v1/executions?limit=50", { headers: { Authorization: `Bearer ${token}` } });
    const body = await answer.json();
    if (answer.ok) show(body);
    else element("notice").textContent = `${body.title}: ${body.detail ?? ""}`;
    if (answer.status === 401) return;
  } catch {
    element("notice").textContent = "The gateway does not answer; trying again.";
  }
  timer = setTimeout(refresh, REFRESH_MS);
}

element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value.trim();
  refresh();
});

fetch("/console/settings.json").then((answer) => answer.json()).then((settings) => {
  if (!settings.temporal_ui_url) return;
  const link = element("temporal-ui");
  link.href = settings.temporal_ui_url;
  link.hidden = false;
}).catch(() => {});
