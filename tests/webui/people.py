"""A person with an account, and the chats that this person has."""

import time

from rackllama.host.webui.open_webui import Session

PERSON = {"name": "Person", "email": "person@example.com", "password": "P3rson-of-the-test!", "role": "user"}


def write_chat(person: Session, title: str) -> None:
    chat = {"title": title, "models": ["gemma3-270m:q4_k_m"], "history": {"messages": {}, "currentId": None}}
    person.ask("POST", "/api/v1/chats/new", {"chat": {**chat, "messages": [], "timestamp": int(time.time())}})


def chats(person: Session) -> list[str]:
    return sorted(chat["title"] for chat in person.ask("GET", "/api/v1/chats/?page=1"))
