from hypothesis import settings

settings.register_profile("skydraft", deadline=None)  # the machine may be busy with other things
settings.load_profile("skydraft")
