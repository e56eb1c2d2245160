from apps.common.clients import claude

claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded
