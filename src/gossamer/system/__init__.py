"""The operating system and the compiler: processes, signals, memory, compiled programs."""
